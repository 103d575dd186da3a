// The overview: a tile a measure, which also chooses what the charts show.
import { el } from "./dom.js";
import * as format from "./format.js";
import { state } from "./state.js";

const LEFT_OUT = new Set(["timestamp", "string", "enum", "bool"]);
export const measures = (answer) => answer.columns.filter((column) => column.role === "measure" && !LEFT_OUT.has(column.type));

export function related(answer, name, kind) {
  return answer.columns.find((column) => column.role === "comparison" && column.of === name && column.measure === kind)?.name;
}

export function sparkline(values, previous) {
  const width = 120, height = 32, all = [...values, ...(previous ?? [])].filter((value) => value != null);
  const most = Math.max(...all, 0) || 1;
  const path = (list) => list.map((value, index) => `${index ? "L" : "M"}${((index / Math.max(1, list.length - 1)) * width).toFixed(1)} ${(height - 2 - ((value ?? 0) / most) * (height - 4)).toFixed(1)}`).join("");
  if (values.length < 2) return el("span", { class: "spark" });
  return el("svg:svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    el("svg:path", { d: `${path(values)}L${width} ${height}L0 ${height}Z`, class: "fill" }),
    el("svg:path", { d: path(values), class: "line" }));
}

export function tiles(answer, choose) {
  return el("div", { class: "tiles", role: "group", "aria-label": "Overview; choose what the chart shows" }, measures(answer).map((column) => {
    const value = answer.totals?.[column.name];
    const previous = related(answer, column.name, "previous"), percent = related(answer, column.name, "percent");
    const moved = percent && format.change(answer.totals?.[percent], column);
    const error = answer.errors[column.name];
    const hidden = value === null && answer.suppressed?.some((one) => one.where === "totals" && one.measures.includes(column.name));
    return el("button", {
      type: "button", class: "tile", "data-measure": column.name, "aria-pressed": String(column.name === state.measure),
      title: `${format.title(column.name)}: ${format.number(value, column)}`, onclick: () => choose(column.name),
    },
    el("span", { class: "name" }, format.title(column.name)),
    el("span", { class: "value", "data-value": value ?? "" }, hidden ? "Too few" : format.number(value, column, { compact: true }),
      error && value ? el("small", { title: "An estimate: the true number is within this of it in 95 of 100 cases." }, ` ±${format.share(2 * error)}`) : ""),
    answer.previous && (moved
      ? el("span", { class: `moved ${moved.coloured ? moved.way : "flat"}` }, el("span", { "aria-hidden": "true" }, { up: "▲ ", down: "▼ ", flat: "" }[moved.way]), moved.text,
        el("span", { class: "from" }, ` from ${format.number(answer.totals[previous], column, { compact: true })}`))
      : el("span", { class: "moved flat" }, value && !answer.totals?.[previous] ? "nothing before" : "no change")),
    sparkline(answer.rows.map((row) => row[column.name])));
  }));
}

export function skeleton(count = 6) {
  return el("div", { class: "tiles", "aria-hidden": "true" }, Array.from({ length: count }, () => el("div", { class: "tile skeleton" })));
}
