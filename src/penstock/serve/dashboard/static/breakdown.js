// What the numbers are made of: a table by a dimension, with bars, sorted by any of its measures.
import { Refused, query } from "./api.js";
import { download } from "./csv.js";
import { el, failure, say } from "./dom.js";
import * as format from "./format.js";
import { compared, span, state, write } from "./state.js";
import { measures, related } from "./tiles.js";

const MOST = 12;

export function dimensions(rollup) {
  const found = [];
  for (const { by } of rollup.breakdowns) for (const name of by) if (!found.includes(name)) found.push(name);
  return found;
}

export class Breakdown {
  constructor(rollup) {
    this.rollup = rollup;
    this.dimensions = dimensions(rollup);
    this.tabs = el("div", { class: "tabs", role: "group", "aria-label": "Break down by" });
    this.body = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Breakdown" });
    this.note = el("p", { class: "hint" });
    this.save = el("button", { type: "button", class: "quiet", id: "csv", disabled: true, onclick: () => this.export() }, "Download CSV");
    this.node = el("section", { class: "card wide", "aria-labelledby": "breakdown-title" },
      el("div", { class: "head" }, el("h2", { id: "breakdown-title" }, "Breakdown"), this.tabs, this.save), this.body, this.note);
  }

  get by() { return this.dimensions.includes(state.by) ? state.by : this.dimensions[0]; }

  async load() {
    const focused = this.tabs.contains(document.activeElement);
    this.tabs.replaceChildren(...this.dimensions.map((name) => el("button", {
      type: "button", "aria-pressed": String(name === this.by), onclick: () => { write({ by: name }); this.load(); },
    }, format.title(name))));
    if (focused) this.tabs.querySelector("[aria-pressed=true]").focus();
    this.going?.abort();
    this.going = new AbortController();
    const { signal } = this.going, sort = state.sort || `-${state.measure}`;
    this.node.setAttribute("aria-busy", "true");
    try {
      const answer = await query(this.rollup.name, {
        ...span(), entity: state.entity, by: [this.by], top: sort.startsWith("-") ? MOST : undefined, other: sort.startsWith("-"), limit: sort.startsWith("-") ? undefined : MOST,
        order: sort, totals: true, compare: compared(),
      }, signal);
      this.show(answer);
      say(`${format.title(this.by)}: ${answer.rows.length} rows`);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.answer = null;
      this.save.disabled = true;
      this.body.replaceChildren(failure(error instanceof Refused ? error.problem : { detail: error.message }, () => this.load()));
      this.note.textContent = "";
    } finally {
      if (!signal.aborted) this.node.removeAttribute("aria-busy");
    }
  }

  show(answer) {
    const focused = this.body.contains(document.activeElement) && document.activeElement.dataset.sort;
    this.answer = answer;
    this.save.disabled = !answer.rows.length;
    this.note.textContent = "";
    if (!answer.rows.length) {
      this.body.replaceChildren(el("p", { class: "empty" }, "Nothing happened in this time."));
      return;
    }
    const columns = measures(answer), sort = (state.sort || `-${state.measure}`).replace(/^-/, "");
    const most = Math.max(...answer.rows.map((row) => row[sort] ?? 0)) || 1, whole = answer.totals?.[sort];
    const adds = ["count", "sum"].includes(columns.find((column) => column.name === sort)?.measure);
    const percent = answer.previous && related(answer, sort, "percent");
    const head = el("tr", {}, el("th", { scope: "col" }, format.title(this.by)),
      columns.map((column) => el("th", { scope: "col", class: "number", "aria-sort": column.name === sort ? (state.sort && !state.sort.startsWith("-") ? "ascending" : "descending") : false },
        el("button", { type: "button", "data-sort": column.name, onclick: () => this.sort(column.name) }, format.title(column.name), column.name === sort && el("span", { "aria-hidden": "true" }, state.sort && !state.sort.startsWith("-") ? " ↑" : " ↓")))),
      adds && el("th", { scope: "col", class: "number" }, "Share"), percent && el("th", { scope: "col", class: "number" }, "Change"));
    const line = (row, name, plain) => el("tr", { class: plain ? "rest" : null },
      el("th", { scope: "row" }, name),
      columns.map((column) => {
        const cell = el("td", { class: "number", "data-column": column.name }, el("span", {}, format.number(row[column.name], column)));
        if (column.name === sort && !plain) {
          const bar = el("meter", { class: "barline", "aria-hidden": "true", min: 0, max: most, value: Math.max(0, row[sort] ?? 0) });
          cell.append(bar);
          cell.classList.add("sorted");
        }
        return cell;
      }),
      adds && el("td", { class: "number" }, whole ? format.share((row[sort] ?? 0) / whole) : "–"),
      percent && el("td", { class: "number" }, this.moved(row[percent], columns.find((column) => column.name === sort))));
    this.body.replaceChildren(el("table", { id: "breakdown" },
      el("caption", { class: "unseen" }, `By ${this.by}, sorted by ${format.title(sort)}`),
      el("thead", {}, head),
      el("tbody", {}, answer.rows.map((row) => line(row, format.dimension(row[this.by])))),
      el("tfoot", {}, answer.other?.length && columns.some((column) => answer.other[0][column.name]) ? line(answer.other[0], "All others", true) : "",
        answer.totals && line(answer.totals, "Total", true))));
    if (focused) this.body.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
    const notes = [];
    const estimates = Object.keys(answer.errors).filter((name) => columns.some((column) => column.name === name));
    if (estimates.length) notes.push(`${estimates.map((name) => `${format.title(name)} is an estimate, ±${format.share(2 * answer.errors[name])}`).join("; ")}. Somebody who is in two rows counts once in the total.`);
    if (answer.suppressed?.length) notes.push("What fewer people stand behind than may be shown is left blank (–).");
    if (answer.ranking?.unsure?.length) notes.push("Neighbours in this order are nearer to each other than the estimate is sure of.");
    this.note.textContent = notes.join(" ");
  }

  moved(value, column) {
    const moved = format.change(value, column);
    return moved ? el("span", { class: `moved ${moved.coloured ? moved.way : "flat"}` }, moved.text) : "–";
  }

  sort(name) {
    write({ sort: (state.sort || `-${state.measure}`) === `-${name}` ? name : `-${name}` });
    this.load();
  }

  export() {
    const columns = [this.answer.columns.find((column) => column.name === this.by), ...measures(this.answer)];
    const rows = [...this.answer.rows, ...(this.answer.other?.length ? [{ ...this.answer.other[0], [this.by]: "All others" }] : [])];
    download(`${state.rollup}-${state.entity}-by-${this.by}.csv`, columns.map((column) => column.name), rows);
    say("The table was saved as a file");
  }
}
