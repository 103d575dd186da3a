// The last 60 minutes, pushed by the server whenever something was committed.
import { address } from "./api.js";
import { el, say } from "./dom.js";
import * as format from "./format.js";
import { state } from "./state.js";

const AGAIN = 10000;
const SPOKEN = 60000; // a screen reader hears of it once a minute

export class Live {
  constructor(rollup, changed) {
    this.rollup = rollup;
    this.changed = changed;
    this.spoken = Date.now();
    this.dot = el("span", { class: "dot", "aria-hidden": "true" });
    this.status = el("span", { class: "label", id: "live-status" }, "connecting");
    this.total = el("p", { class: "value", id: "live-total" }, "–");
    this.words = el("p", { class: "hint" }, "\u00a0");
    this.bars = el("div", { class: "bars", role: "img", "aria-label": "Chart of the last 60 minutes" });
    this.table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The last 60 minutes as a table" });
    this.node = el("section", { class: "card", "aria-labelledby": "live-title" },
      el("div", { class: "head" }, el("h2", { id: "live-title" }, "Last 60 minutes"), el("span", { class: "state" }, this.dot, this.status)),
      this.total, this.words, this.bars, el("div", { class: "ends", "aria-hidden": "true" }, el("span", {}, "60 min ago"), el("span", {}, "now")),
      el("details", {}, el("summary", {}, "Show as table"), this.table));
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.start()));
  }

  start() {
    this.stop();
    if (!this.node.isConnected || document.hidden) return;
    const source = this.source = new EventSource(address(this.rollup.name, "live", { entity: state.entity, measures: [state.measure], minutes: 60, timezone: state.tz }));
    source.addEventListener("answer", (event) => { this.set("live", "on"); this.show(JSON.parse(event.data)); });
    source.addEventListener("problem", (event) => {
      const problem = JSON.parse(event.data);
      this.set("not live", "off");
      this.words.textContent = problem.detail;
      if (problem.status !== 503) this.stop();
    });
    source.onerror = () => {
      this.set("connecting again", "off");
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.source === source && this.start(), AGAIN); // it was answered with an error, after which a browser gives up
    };
  }

  stop() { this.source?.close(); this.source = null; }

  set(text, kind) { this.status.textContent = text; this.dot.className = `dot ${kind}`; }

  show(answer) {
    const column = answer.columns.find((one) => one.name === state.measure);
    if (!column) return;
    const values = answer.rows.map((row) => row[column.name] ?? 0), most = Math.max(...values, 0) || 1, wide = 100 / Math.max(values.length, 1);
    const adds = ["count", "sum"].includes(column.measure);
    const whole = adds ? values.reduce((sum, value) => sum + value, 0) : values.at(-1);
    this.total.textContent = format.number(whole, column);
    this.total.dataset.value = whole;
    const minute = answer.rows.at(-2);
    this.words.textContent = `${format.title(column.name)}${adds ? "" : " in the minute that runs"}${minute && adds ? `, ${format.number(minute[column.name], column)} in the last whole minute` : ""}`;
    this.bars.replaceChildren(el("svg:svg", { viewBox: "0 0 100 60", preserveAspectRatio: "none", "aria-hidden": "true" },
      values.map((value, index) => el("svg:rect", { x: index * wide + wide * 0.12, width: wide * 0.76, y: 60 - Math.max((value / most) * 58, value ? 1 : 0.4), height: Math.max((value / most) * 58, value ? 1 : 0.4), class: value ? (index === values.length - 1 ? "now" : "full") : "none" }))));
    this.bars.setAttribute("aria-label", `Chart of the last 60 minutes of ${format.title(column.name)}: ${format.number(whole, column)}. The same numbers are in the table that follows.`);
    this.table.replaceChildren(el("table", {}, el("caption", { class: "unseen" }, "By minute, the newest first"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Minute"), el("th", { scope: "col", class: "number" }, format.title(column.name)))),
      el("tbody", {}, answer.rows.toReversed().map((row) => el("tr", {}, el("th", { scope: "row" }, format.clock(row.time)), el("td", { class: "number" }, format.number(row[column.name], column)))))));
    if (Date.now() - this.spoken > SPOKEN) {
      say(`${format.title(column.name)} in the last 60 minutes: ${this.total.textContent}`);
      this.spoken = Date.now();
    }
    this.changed();
  }
}
