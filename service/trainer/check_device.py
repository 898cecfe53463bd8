"""Ends with status 1, and the reason on stderr, if torch cannot train on a device.

`python -m service.trainer.check_device DEVICE`.
"""

import sys

from models import ConfigError, use_device

if __name__ == "__main__":
    try:
        use_device(sys.argv[1])
    except ConfigError as error:
        sys.exit(str(error))
