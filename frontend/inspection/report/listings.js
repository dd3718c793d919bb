// Texts: whole stages in pieces that the browser lays out when they come into view, and the table of kernels.
"use strict";

const PIECE = 200; // lines
const LINE_HEIGHT = 18; // pixels, as in the style sheet

function listing(lines, name) {
  const longest = lines.reduce((most, line) => Math.max(most, line.length), 0);
  const root = element("div", { class: "listing", tabindex: 0, role: "region", "aria-label": `Text of stage ${name}` });
  for (let first = 0; first < lines.length; first += PIECE) {
    const piece = lines.slice(first, first + PIECE);
    const drawn = element("pre", {}, `${piece.join("\n")}\n`);
    drawn.style.containIntrinsicSize = `${longest}ch ${piece.length * LINE_HEIGHT}px`;
    root.append(drawn);
  }
  return root;
}

// Scrolls a listing so that a line is at its top.
function scrollToLine(root, line) {
  const piece = root.children[Math.floor(line / PIECE)];
  if (!piece) return;
  piece.scrollIntoView({ block: "start" });
  root.scrollTop += (line % PIECE) * LINE_HEIGHT;
}

async function textView(data, name) {
  const lines = await data.textLines(name);
  const text = listing(lines, name);
  const functions = data.functions.filter((one) => one[name]);
  if (functions.length < 2) return element("div", { class: "text" }, text);
  const jump = element(
    "select",
    { "aria-label": "Go to a kernel", onchange: (event) => scrollToLine(text, Number(event.target.value)) },
    element("option", { value: 0 }, `${plural(functions.length, "kernel")}: go to …`),
    functions.map((one) => element("option", { value: one[name][0] }, one.name)),
  );
  return element("div", { class: "text" }, element("div", { class: "jump" }, jump), text);
}

// The calls of a step in order; those of equal structure share a function.
function callsView(data, go) {
  const timed = data.times.size > 0;
  const names = ["call", "kernel", "kind", "layers", "function", ...(timed ? ["time"] : [])];
  const rows = data.calls.map((call) => [
    String(call.number),
    element("button", { type: "button", class: "link", "data-call": call.number, onclick: () => go({ call: call.number }) }, breakable(call.title)),
    data.strings[call.kind],
    element("span", { class: "quiet" }, shortened(data.strings[call.layers], 60)),
    code(data.functions[call.function].name),
    ...(timed ? [secondsText(data.times.get(call.number)?.seconds)] : []),
  ]);
  return element("div", { class: "page" }, element("p", { class: "quiet" }, `${plural(data.calls.length, "call")} of ${plural(data.functions.length, "distinct kernel")}`), table(names, rows, timed ? [0, 5] : [0]));
}
