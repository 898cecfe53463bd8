// The severity chart: largest severity, 99th percentile, the threshold at 1, incidents as bands,
// generations as dashed lines. Arrow keys move from point to point, and screen readers read the point.
import uPlot from "./uPlot.js";

const seconds = (text) => Date.parse(text) / 1000;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// All times of the page are in UTC, on a clock of 24 hours.
const minute = (at) => new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ");
const day = (at) => {
  const date = new Date(at * 1000);
  const options = { day: "numeric", month: "short", timeZone: "UTC" };
  if (date.getUTCFullYear() !== new Date().getUTCFullYear()) options.year = "2-digit";
  return date.toLocaleDateString("en-GB", options);
};
const ticks = (u, splits) =>
  splits.map((at) => (at % 86_400 ? minute(at).slice(11) : day(at)));

function marks(chart) {
  return {
    hooks: {
      drawClear: (u) => {
        const { ctx } = u;
        const { left, top, width, height } = u.bbox;
        ctx.save();
        ctx.beginPath();
        ctx.rect(left, top, width, height);
        ctx.clip();
        ctx.fillStyle = colour("--band");
        for (const [start, end] of chart.incidents) {
          const from = u.valToPos(seconds(start), "x", true);
          const to = u.valToPos(seconds(end), "x", true);
          ctx.fillRect(from, top, Math.max(to - from, 3), height);
        }
        ctx.restore();
      },
      draw: (u) => {
        const { ctx } = u;
        const { left, top, width, height } = u.bbox;
        ctx.save();
        ctx.lineWidth = 1;
        ctx.strokeStyle = colour("--bad");
        ctx.setLineDash([6, 4]);
        const one = u.valToPos(1, "y", true);
        if (one >= top && one <= top + height) {
          ctx.beginPath();
          ctx.moveTo(left, one);
          ctx.lineTo(left + width, one);
          ctx.stroke();
        }
        ctx.strokeStyle = colour("--soft");
        ctx.fillStyle = colour("--soft");
        ctx.setLineDash([2, 3]);
        chart.generation.forEach((generation, i) => {
          if (i && generation !== chart.generation[i - 1]) {
            const x = u.valToPos(seconds(chart.at[i]), "x", true);
            ctx.beginPath();
            ctx.moveTo(x, top);
            ctx.lineTo(x, top + height);
            ctx.stroke();
            ctx.fillText(`generation ${generation}`, x + 3, top + 12);
          }
        });
        ctx.restore();
      },
    },
  };
}

export function draw(element) {
  const chart = JSON.parse(document.getElementById(element.dataset.chart).textContent);
  const spoken = document.getElementById("spoken");
  if (!chart.at.length) return;
  const times = chart.at.map(seconds);
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 } };
  element.replaceChildren();
  const plot = new uPlot(
    {
      width: element.clientWidth,
      height: 260,
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "UTC"),
      legend: { live: true },
      scales: {
        x: { time: true, range: [seconds(chart.from), seconds(chart.to)] },
        // The axis is nearly linear below the threshold and logarithmic above it.
        y: { distr: 4, asinh: 1, range: (u, low, high) => [0, Math.max(1.5, high * 1.1)] },
      },
      axes: [
        { ...axis, values: ticks },
        {
          ...axis,
          label: "severity",
          stroke: colour("--soft"),
          splits: (u) => [0, 1, 10, 100, 1000].filter((value) => value <= u.scales.y.max),
        },
      ],
      series: [
        { label: "time, UTC", value: (u, at) => (at === null ? "--" : minute(at)) },
        { label: "largest", stroke: colour("--bad"), width: 1.5, points: { show: times.length < 60 } },
        { label: "99th percentile", stroke: colour("--accent"), width: 1.5, points: { show: times.length < 60 } },
      ],
      plugins: [marks(chart)],
    },
    [times, chart.max, chart.p99],
    element,
  );
  let place = times.length;
  element.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    place = Math.min(Math.max(place + step, 0), times.length - 1);
    plot.setCursor({ left: plot.valToPos(times[place], "x"), top: 40 });
    spoken.textContent =
      `${minute(times[place])} UTC: largest severity ${chart.max[place].toFixed(2)}, ` +
      `${chart.rows[place]} rows, ${chart.alarms[place]} alarms`;
  };
}
