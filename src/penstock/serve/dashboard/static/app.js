// The page: who is signed in, whose numbers are shown, and the parts that show them.
import * as api from "./api.js";
import { Breakdown } from "./breakdown.js";
import { Chart, series } from "./chart.js";
import { $, el, failure, say, select } from "./dom.js";
import * as format from "./format.js";
import { Live } from "./live.js";
import { form, fromFragment, refused } from "./signin.js";
import { INTERVALS, RANGES, chosen, compared, interval, read, span, state, write } from "./state.js";
import { measures, skeleton, tiles } from "./tiles.js";

const AGAIN = 20000; // milliseconds after which live traffic renews the other numbers
const ZONES = ["UTC", ...Intl.supportedValuesOf("timeZone").filter((name) => name !== "UTC")];
let view = null;

async function start() {
  read();
  view?.close();
  view = null;
  let mine, found;
  try {
    await fromFragment();
    [mine, found] = [await api.me(), await api.rollups()];
  } catch (error) {
    $("leave").hidden = true;
    $("who").replaceChildren();
    if (error.status === 401) form(start, error.given && { detail: "The key or link that you opened is not valid here, or has expired." });
    else $("page").replaceChildren(failure(error.problem ?? { detail: error.message }, start));
    $("page").removeAttribute("aria-busy");
    return;
  }
  $("leave").hidden = false;
  if (!found.length) {
    $("page").replaceChildren(failure({ title: "Nothing is counted yet", detail: "No roll-up is open to this key.", hint: "once a topology has been run, its roll-ups are here" }, start));
    return;
  }
  const rollup = found.find((one) => one.name === state.rollup) ?? found[0];
  const open = mine.scope.entities?.[rollup.entity.field] ?? null;
  write({ rollup: rollup.name, entity: state.entity || (open?.[0] ?? "") });
  who(found, rollup, open);
  if (!state.entity) {
    $("page").replaceChildren(el("p", { class: "empty" }, `Enter whose numbers you want to see: a value of ${format.title(rollup.entity.field)}.`));
    $("page").removeAttribute("aria-busy");
    return;
  }
  view = new View(rollup, mine, open);
  await view.load();
}

function who(found, rollup, open) {
  const field = format.title(rollup.entity.field);
  const choose = (entity) => { write({ entity }); start(); };
  const entity = open && open.length > 1 ? select(field, state.entity, open.map((one) => [one, one]), choose)
    : open ? el("h1", {}, `${field} ${state.entity}`)
      : el("form", { class: "field", onsubmit: (event) => { event.preventDefault(); choose(event.target.elements.entity.value.trim()); } },
        el("label", { class: "label", for: "entity" }, field), el("input", { id: "entity", name: "entity", value: state.entity, size: 10, autocomplete: "off", inputmode: rollup.entity.type === "int" ? "numeric" : "text" }));
  $("who").replaceChildren(entity, found.length > 1 ? select("View", rollup.name, found.map((one) => [one.name, format.title(one.name)]), (name) => { write({ rollup: name, entity: "", measure: "", by: "", sort: "" }); start(); }, { hidden: true }) : "");
}

class View {
  constructor(rollup, mine, open) {
    Object.assign(this, { rollup, mine, open, renewed: Date.now() });
    this.asOf = el("p", { class: "standing", id: "standing" }, "\u00a0");
    this.warning = el("div", {});
    this.tiles = el("div", { class: "overview" }, skeleton());
    this.name = el("h2", { id: "series-title" }, "\u00a0");
    this.readout = el("p", { class: "readout", "aria-hidden": "true" });
    this.canvas = el("div", { class: "canvas", role: "img", "aria-label": "Chart" });
    this.table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The chart's numbers" });
    this.body = el("div", {}, this.readout, this.canvas, el("details", {}, el("summary", {}, "Show as table"), this.table));
    this.chart = new Chart(this.canvas, this.readout);
    this.live = new Live(rollup, () => this.renew());
    this.breakdown = new Breakdown(rollup);
    this.controls = el("div", { class: "controls", role: "group", "aria-label": "What is shown" });
    this.interval = el("span", {});
    this.charts = el("div", { class: "two" },
      el("section", { class: "card", "aria-labelledby": "series-title" }, el("div", { class: "head" }, this.name, this.interval), this.body),
      this.live.node);
    $("page").replaceChildren(this.controls, this.asOf, this.warning, this.tiles, this.charts,
      this.breakdown.dimensions.length ? this.breakdown.node : "");
    this.draw();
  }

  draw() {
    const change = (values) => { write(values); this.draw(); this.load(); };
    const dates = (range) => {
      if (range !== "custom" || state.start) return { range };
      const today = new Date();
      return { range, start: new Date(today - 6 * 86400000).toISOString().slice(0, 10), end: today.toISOString().slice(0, 10) };
    };
    const day = (label, name) => el("label", { class: "field" }, el("span", { class: "label" }, label), el("input", { type: "date", value: state[name], onchange: (event) => {
      if (!event.target.value) return;
      const wanted = { ...state, [name]: event.target.value };
      change({ [name]: event.target.value, ...(wanted.start > wanted.end ? { start: event.target.value, end: event.target.value } : {}) });
    } }));
    const focused = document.activeElement?.closest(".field")?.textContent;
    this.controls.replaceChildren(
      select("Time", state.range, RANGES, (range) => change({ ...dates(range), interval: "" })),
      ...(state.range === "custom" ? [day("From", "start"), day("To", "end")] : []),
      select("Time zone", state.tz, (ZONES.includes(state.tz) ? ZONES : [state.tz, ...ZONES]).map((name) => [name, name.replaceAll("_", " ")]), (tz) => { chosen.tz = true; change({ tz }); }),
      el("label", { class: "check" }, el("input", { type: "checkbox", id: "compare", checked: state.compare === "1", onchange: (event) => change({ compare: event.target.checked ? "1" : "0" }) }), "Compare with the time before"),
      el("label", { class: "field" }, el("span", { class: "label" }, "Currency"), el("input", { value: state.currency, size: 5, maxlength: 8, placeholder: "EUR", onchange: (event) => { write({ currency: event.target.value.trim() }); this.relabel(); } })),
      el("button", { type: "button", class: "quiet", onclick: async (event) => {
        const button = event.currentTarget;
        try { await navigator.clipboard.writeText(location.href); say("The link was copied"); button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy link"; }, 2000); } catch { say("The link is in the address bar"); }
      } }, "Copy link"));
    this.name.after(this.interval);
    this.interval.replaceChildren(select("Every", state.interval, INTERVALS, (value) => change({ interval: value })));
    if (focused) [...this.controls.querySelectorAll(".field")].find((one) => one.textContent === focused)?.querySelector("select,input")?.focus();
  }

  async load() {
    this.going?.abort();
    this.going = new AbortController();
    const { signal } = this.going;
    $("page").setAttribute("aria-busy", "true");
    try {
      const answer = await api.query(this.rollup.name, { ...span(), entity: state.entity, interval: interval(), totals: true, compare: compared() }, signal);
      const shown = measures(answer);
      if (!shown.some((column) => column.name === state.measure)) write({ measure: shown[0].name });
      this.answer = answer;
      this.charts.hidden = this.breakdown.node.hidden = false;
      this.show();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.failed(error);
      return;
    } finally {
      if (!signal.aborted) $("page").removeAttribute("aria-busy");
    }
    if (!this.live.source) this.live.start();
    await this.breakdown.load();
  }

  failed(error) {
    if (error.status === 401) { form(start, { detail: "You were signed out." }); return; }
    if (error.problem?.parameter === "timezone" && !chosen.tz) { // the browser's own zone, which the roll-up's hours do not fit
      this.zoned = state.tz;
      write({ tz: "UTC" });
      this.draw();
      this.load();
      return;
    }
    if (error.status === 403) {
      this.close();
      const own = this.open?.[0];
      refused(error.problem, this.mine.name, own && `${location.pathname}?${new URLSearchParams({ rollup: this.rollup.name, entity: own })}`, leave);
      return;
    }
    this.tiles.replaceChildren(failure(error.problem ?? { detail: error.message }, () => this.load()));
    this.asOf.textContent = "\u00a0";
    this.warning.replaceChildren();
    this.charts.hidden = this.breakdown.node.hidden = true;
    this.controls.append(this.interval); // the way out, where the interval is what was wrong
  }

  show() {
    const { answer } = this, column = measures(answer).find((one) => one.name === state.measure);
    document.title = `${format.title(this.rollup.entity.field)} ${state.entity} · Penstock`;
    const focused = document.activeElement?.dataset?.measure;
    this.tiles.replaceChildren(tiles(answer, (name) => { write({ measure: name, sort: "" }); this.show(); this.live.start(); this.breakdown.load(); }));
    if (focused) this.tiles.querySelector(`[data-measure="${CSS.escape(focused)}"]`)?.focus();
    this.asOf.textContent = answer.as_of ? `Counted up to ${format.instant(answer.as_of)}. ${answer.complete ? "Complete." : ""}${answer.previous ? ` Compared with ${format.instant(answer.previous.start)} to ${format.instant(answer.previous.end)}.` : ""}${this.zoned && state.tz === "UTC" ? ` In UTC, since these numbers are not kept for the hours of ${this.zoned}.` : ""}` : "Nothing has been counted yet.";
    this.warning.replaceChildren(answer.complete ? "" : el("details", { class: "partial" },
      el("summary", {}, "These numbers may still grow"), el("ul", {}, answer.incomplete.map((reason) => el("li", {}, reason[0].toUpperCase() + reason.slice(1))))));
    this.name.textContent = format.title(column.name);
    const empty = !measures(answer).some((one) => answer.totals?.[one.name]);
    this.canvas.classList.toggle("blank", empty);
    this.chart.draw(answer, column);
    this.table.replaceChildren(series(answer, column));
    say(`${format.title(column.name)}: ${format.number(answer.totals?.[column.name], column)}`);
  }

  renew() { // live traffic: what counts up to now is asked again, not too often
    if (Date.now() - this.renewed < AGAIN || state.range === "custom") return;
    this.renewed = Date.now();
    this.load();
  }

  relabel() {
    if (this.answer) this.show();
    if (this.breakdown.answer) this.breakdown.show(this.breakdown.answer);
    this.live.start();
  }

  close() { this.going?.abort(); this.live.stop(); this.chart.resized.disconnect(); }
}

async function leave() {
  view?.close();
  view = null;
  try { await api.signOut(); } catch { /* the cookie may have ended by itself */ }
  write({ entity: "", rollup: "", measure: "" });
  start();
}

function themed() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("theme").setAttribute("aria-pressed", String(dark));
  view?.chart.redraw();
  return dark;
}

$("theme").addEventListener("click", () => {
  const next = themed() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("penstock-theme", next); } catch { /* kept for this page alone */ }
  themed();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
$("leave").addEventListener("click", leave);
window.addEventListener("hashchange", () => { if (/^#(key|token)=/.test(location.hash)) start(); });
themed();
start();
