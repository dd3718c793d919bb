// The report's data: inflates the document, and gives its tables names.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const PARTS = ["forward", "gradient", "update"];

// An element with attributes and children; text is never read as markup.
function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svgElement(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

async function inflate(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}

class Data {
  constructor(json) {
    Object.assign(this, json);
    this.byName = new Map(this.stages.map((stage) => [stage.name, stage]));
    for (const stage of this.stages) if (stage.kind === "graph") this.indexGraph(stage);
    this.calls.forEach((call, number) => {
      call.number = number;
      call.title = this.strings[call.name];
      const code = this.functions[call.function];
      (code.calls ??= []).push(number);
    });
    this.times = new Map((this.profile?.kernels ?? []).map((kernel) => [kernel.call, kernel]));
    this.lines = new Map();
  }

  static async read() {
    return new Data(JSON.parse(await inflate("document")));
  }

  indexGraph(stage) {
    const count = stage.number.length;
    stage.users = Array.from({ length: count }, () => []);
    stage.inputs.forEach((inputs, node) => new Set(inputs).forEach((operand) => stage.users[operand].push(node)));
    stage.place = new Map(stage.number.map((number, node) => [number, node]));
    stage.kernels = Array.from({ length: count }, () => []);
    stage.groups.forEach((group, number) => group.members.forEach((node) => stage.kernels[node].push(number)));
    stage.results = new Map(stage.outputs);
  }

  stage(name) {
    return this.byName.get(name);
  }

  text(stage, property, node) {
    return this.strings[stage[property][node]];
  }

  isConstant(stage, node) {
    return this.text(stage, "role", node) === "constant";
  }

  // The provenance of a node: layer, file:line and forward node (its number, or -1).
  provenance(stage, node) {
    return this.origins[stage.origin[node]].map((row) => {
      const [layer, source, forward] = this.sources[row];
      return { layer: this.strings[layer], source: this.strings[source], forward };
    });
  }

  // All lines of a stage's text: from the page itself, or inflated.
  async textLines(name) {
    if (!this.lines.has(name)) {
      const plain = document.getElementById(`text-${name}`);
      const text = plain ? plain.textContent : await inflate(`packed-${name}`);
      this.lines.set(name, text.replace(/\n$/, "").split("\n"));
    }
    return this.lines.get(name);
  }

  async code(name, range) {
    if (!range) return "";
    const lines = await this.textLines(name);
    return lines.slice(range[0], range[0] + range[1]).join("\n");
  }

  // Seconds measured in the kernels of calls; null where nothing was measured.
  seconds(calls) {
    let total = null;
    for (const call of calls) if (this.times.has(call)) total = (total ?? 0) + this.times.get(call).seconds;
    return total;
  }
}

// The name of a kernel, to be broken after its signs.
function breakable(name) {
  return name.split(/(?<=[+,/])/).flatMap((part, at) => (at ? [element("wbr"), part] : [part]));
}

function bytesText(count) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (count >= size) return `${Number((count / size).toPrecision(3))} ${unit}`;
  }
  return `${count} B`;
}

function secondsText(seconds) {
  if (seconds === null || seconds === undefined) return "";
  for (const [unit, size] of [["s", 1], ["ms", 1e-3], ["µs", 1e-6]]) {
    if (seconds >= size) return `${(seconds / size).toPrecision(3)} ${unit}`;
  }
  return `${(seconds / 1e-9).toPrecision(3)} ns`;
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}
