// Making elements. Text is only ever set as text: what events hold is shown, never run.
export function el(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

export const $ = (id) => document.getElementById(id);

export function select(label, value, options, change, { hidden = false } = {}) {
  const list = el("select", { onchange: (event) => change(event.target.value) }, options.map(([of, text]) => el("option", { value: of, selected: String(of) === String(value) }, text)));
  return el("label", { class: "field" }, el("span", { class: hidden ? "unseen" : "label" }, label), list);
}

let clearing;
export function say(text) {
  $("say").textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => { $("say").textContent = ""; }, 8000);
}

export function failure(problem, again) {
  return el("div", { class: "failure", role: "alert" },
    el("h3", {}, problem.title || "That did not work"),
    el("p", {}, problem.detail || "The server could not be reached."),
    problem.hint && el("p", { class: "hint" }, problem.hint[0].toUpperCase() + problem.hint.slice(1)),
    again && el("button", { type: "button", onclick: again }, "Try again"));
}
