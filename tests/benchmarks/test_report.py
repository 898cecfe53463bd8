import numpy as np

from benchmarks import blocks, categories_nsl_kdd, report, slow_walk


def test_help_shows_the_whole_description_as_it_is_written():
    """`--help` defines the columns, so it keeps the lines of the module's docstring."""
    for module in (blocks, categories_nsl_kdd, slow_walk):
        assert module.__doc__.strip() in report.arguments(module.__doc__).format_help()


def test_a_line_of_the_categories_has_the_means_of_its_seeds():
    """Shares are in per cent, and the AUROC of each seed stands beside their mean."""
    seeds = [
        {"AUROC": value, "recall": value, "held": 0.01, "rare": 1.0, "named": 0.5}
        for value in (0.25, 0.75)
    ]
    line = categories_nsl_kdd.line("vae", "categories", seeds)
    assert line["by seed"] == "0.2500 0.7500"
    assert line["AUROC"] == 0.5
    assert np.isclose([line["recall %"], line["held %"]], [50.0, 1.0]).all()
