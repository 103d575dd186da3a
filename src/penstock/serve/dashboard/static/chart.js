// A measure over time, drawn by uPlot; the same numbers as a table beneath.
import { el } from "./dom.js";
import * as format from "./format.js";
import { related } from "./tiles.js";
import { state } from "./state.js";

const HEIGHT = 260;
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  constructor(place, readout) {
    this.place = place;
    this.readout = readout;
    this.resized = new ResizeObserver(() => this.plot && this.place.clientWidth && this.plot.setSize({ width: this.place.clientWidth, height: HEIGHT }));
    this.resized.observe(place);
  }

  draw(answer, column) {
    this.last = [answer, column];
    this.plot?.destroy();
    this.plot = null;
    const previous = answer.previous && related(answer, column.name, "previous");
    const times = answer.rows.map((row) => Date.parse(row.time) / 1000);
    const data = [times, answer.rows.map((row) => row[column.name])];
    const accent = color("--accent");
    const series = [{}, { stroke: accent, width: 2, fill: color("--accent-soft"), points: { show: times.length < 3, fill: accent } }];
    if (previous) {
      data.push(answer.rows.map((row) => row[previous]));
      series.push({ stroke: color("--muted"), width: 1.5, dash: [4, 4], points: { show: false } });
    }
    const short = (value) => format.number(value, column, { compact: true });
    const axis = { stroke: color("--muted"), font: "12px system-ui, sans-serif", grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const words = (index) => {
      const row = answer.rows[index];
      return [`${format.window(row.time, answer.interval)}: ${format.number(row[column.name], column)}`, previous ? `before: ${format.number(row[previous], column)}` : ""].filter(Boolean).join(" · ");
    };
    const rest = answer.rows.some((row) => row[column.name]) ? (previous ? "Dashed: the time before" : "") : "Nothing happened in this time. Choose another, or wait for the first event.";
    this.readout.textContent = rest;
    const days = /[dwoy]$/.test(answer.interval);
    const labels = (plot, splits) => splits.map((at, index) => {
      const when = new Date(at * 1000), zone = { timeZone: answer.timezone };
      const day = when.toLocaleDateString(undefined, { ...zone, day: "numeric", month: "short" });
      if (days) return day;
      const before = index && new Date(splits[index - 1] * 1000).toLocaleDateString(undefined, { ...zone, day: "numeric", month: "short" });
      return day === before ? format.clock(when) : index ? day : `${format.clock(when)}`;
    });
    this.plot = new uPlot({
      width: this.place.clientWidth || 600, height: HEIGHT, series, legend: { show: false },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), answer.timezone),
      scales: { y: { range: (plot, least, most) => [Math.min(0, least ?? 0), most > 0 ? most * 1.08 : 1] } },
      padding: [12, 24, 0, 0], axes: [{ ...axis, size: 32, grid: { show: false }, values: labels, space: 72, incrs: days ? [86400, 2 * 86400, 7 * 86400, 14 * 86400, 30 * 86400, 91 * 86400, 365 * 86400] : undefined },
        { ...axis, size: 58, values: (plot, splits) => splits.map((value) => (column.type === "int" && value % 1 ? "" : short(value))) }],
      cursor: { y: false, points: { size: 8 }, drag: { x: false, y: false } },
      hooks: { setCursor: [(plot) => { this.readout.textContent = plot.cursor.idx == null ? rest : words(plot.cursor.idx); }] },
    }, data, this.place);
    const largest = answer.rows.reduce((best, row) => ((row[column.name] ?? -Infinity) > (best?.[column.name] ?? -Infinity) ? row : best), null);
    this.place.setAttribute("aria-label", `Chart of ${format.title(column.name)}, ${answer.rows.length} points${largest ? `; the most, ${format.number(largest[column.name], column)}, at ${format.window(largest.time, answer.interval)}` : ""}. The same numbers are in the table that follows.`);
  }

  redraw() { if (this.last) this.draw(...this.last); }
}

export function series(answer, column) {
  const previous = answer.previous && related(answer, column.name, "previous");
  return el("table", {},
    el("caption", { class: "unseen" }, `${format.title(column.name)} over time, in ${state.tz}`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Time"), el("th", { scope: "col", class: "number" }, format.title(column.name)), previous && el("th", { scope: "col", class: "number" }, "Before"))),
    el("tbody", {}, answer.rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, format.window(row.time, answer.interval)),
      el("td", { class: "number" }, format.number(row[column.name], column)),
      previous && el("td", { class: "number" }, format.number(row[previous], column))))));
}
