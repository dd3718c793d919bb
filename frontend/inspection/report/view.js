// The drawing of a graph: boxes that can be opened, and a window on them that is moved and zoomed.
"use strict";

const ZOOM = { least: 0.05, most: 3, step: 1.25 };

class GraphView {
  // select: called with what was chosen, a node or a layer's part.
  constructor(data, stage, select) {
    this.data = data;
    this.stage = stage;
    this.select = select;
    this.tree = new LayerTree(data, stage);
    this.open = new Set();
    this.chosen = null;
    this.window = { x: 0, y: 0, scale: 1 };
    const entries = this.tree.root.children;
    if (entries.length === 1 && stage.number.length <= SHOWN_AT_ONCE) this.open.add(partKey(entries[0], 0));
    this.drawing = svgElement("g");
    this.svg = svgElement(
      "svg",
      { class: "graph", tabindex: 0, role: "group", "aria-label": `Graph of stage ${stage.name}. Plus and minus zoom, arrows move.` },
      svgElement("defs", {}, this.arrowhead("arrow"), this.arrowhead("arrow-near")),
      this.drawing,
    );
    this.root = element("div", { class: "canvas" }, this.svg, this.tools(), this.legend());
    this.listen();
    this.draw();
  }

  arrowhead(id) {
    return svgElement(
      "marker",
      { id: `${id}-${this.stage.name}`, class: id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, markerUnits: "userSpaceOnUse", orient: "auto" },
      svgElement("path", { d: "M0.5 1 7.5 4 0.5 7Z" }),
    );
  }

  tools() {
    const button = (label, sign, action) => element("button", { type: "button", title: label, "aria-label": label, onclick: action }, sign);
    return element(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "View" },
      button("Zoom in (+)", "+", () => this.zoom(ZOOM.step)),
      button("Zoom out (−)", "−", () => this.zoom(1 / ZOOM.step)),
      button("Show all (0)", "⤢", () => this.fit()),
      button("Close all layers", "⊟", () => this.closeAll()),
    );
  }

  legend() {
    const parts = PARTS.filter((_, part) => this.tree.root.nodes[part].length);
    const row = (name) => element("span", { class: `key ${name}` }, name);
    return element("div", { class: "legend", "aria-hidden": "true" }, parts.length > 1 ? parts.map(row) : []);
  }

  draw() {
    this.scene = new Scene(this.tree, this.open);
    const marker = (near) => `url(#${near ? "arrow-near" : "arrow"}-${this.stage.name})`;
    this.elements = new Map();
    const most = this.heat();
    this.drawing.replaceChildren(
      svgElement("g", { class: "frames" }, this.scene.frames.map((frame) => this.frame(frame))),
      svgElement(
        "g",
        { class: "links", "aria-hidden": "true" },
        this.scene.links.map((link) => {
          link.drawn = svgElement("path", { class: `link${link.near ? " near" : ""}`, d: link.path, "marker-end": marker(link.near) });
          return link.drawn;
        }),
      ),
      svgElement("g", { class: "boxes" }, this.scene.boxes.map((box) => this.box(box, most))),
    );
    this.mark();
  }

  // The longest time of a box, for the bars of all; null where nothing was measured.
  heat() {
    const seconds = this.scene.boxes.filter((box) => box.kind === "layer").map((box) => (box.seconds = this.secondsOf(box)));
    return seconds.reduce((most, one) => (one === null ? most : Math.max(most ?? 0, one)), null);
  }

  secondsOf(box) {
    if (!this.data.times.size || this.stage.name !== "fused") return null;
    let total = 0;
    const nodes = new Set(box.entry.nodes[box.part]);
    const groups = new Set([...nodes].flatMap((node) => this.stage.kernels[node]));
    for (const call of this.data.calls) {
      if (!groups.has(call.group) || !this.data.times.has(call.number)) continue;
      const share = call.members.reduce((sum, node, at) => sum + (nodes.has(node) ? call.shares[at] : 0), 0);
      total += this.data.times.get(call.number).seconds * share;
    }
    return total;
  }

  frame(frame) {
    const name = frame.part === null ? frame.entry.name : `${frame.entry.name} · ${PARTS[frame.part]}`;
    const close = () => this.toggle(frame.key);
    return svgElement(
      "g",
      {
        class: `frame ${frame.part === null ? "" : PARTS[frame.part]}`,
        tabindex: 0,
        role: "button",
        "aria-expanded": "true",
        "aria-label": `${name}, close`,
        "data-key": frame.key,
        onclick: close,
        onkeydown: (event) => pressed(event, close),
      },
      svgElement("rect", { x: frame.x, y: frame.y, width: frame.width, height: frame.height, rx: 9 }),
      svgElement("text", { class: "title", x: frame.x + 12, y: frame.y + 18 }, `▾ ${shortened(name, frame.width / 7.2)}`),
    );
  }

  box(box, most) {
    const layer = box.kind === "layer";
    const act = () => (layer ? this.chooseLayer(box) : this.chooseNode(box.node));
    const role = layer ? "" : this.data.text(this.stage, "role", box.node);
    const title = layer ? box.entry.name : box.label;
    const below = layer ? this.layerNote(box) : box.type;
    const [x, y] = [box.x, box.y];
    const drawn = svgElement(
      "g",
      {
        class: `box ${box.kind} ${PARTS[box.part]} ${role ? "input" : ""}`,
        tabindex: 0,
        role: "button",
        "aria-expanded": layer ? "false" : null,
        "aria-label": layer ? `${box.entry.path}, ${PARTS[box.part]}, ${below}` : `%${this.stage.number[box.node]} ${title} ${below}`,
        "data-key": box.key,
        "data-layer": layer ? box.entry.path : null,
        "data-number": layer ? null : this.stage.number[box.node],
        onclick: act,
        onkeydown: (event) => pressed(event, act),
      },
      svgElement("title", {}, layer ? `${box.entry.path} · ${PARTS[box.part]}` : `${title}: ${box.type}`),
      layer && box.entry.children.length ? svgElement("rect", { class: "behind", x: x + 4, y: y + 4, width: box.width, height: box.height, rx: 8 }) : null,
      svgElement("rect", { class: "body", x, y, width: box.width, height: box.height, rx: layer ? 8 : role ? box.height / 2 : 5 }),
      svgElement("text", { class: "title", x: x + box.width / 2, y: y + (layer ? 18 : 15) }, shortened(title, (box.width - 16) / (layer ? 7.3 : 6.7))),
      svgElement("text", { class: "note", x: x + box.width / 2, y: y + (layer ? 33 : 28) }, shortened(below, (box.width - 12) / (layer ? 5.7 : 5.9))),
      most && box.seconds ? svgElement("rect", { class: "heat", x: x + 8, y: y + box.height - 5, width: Math.max(1, ((box.width - 16) * box.seconds) / most), height: 2.5, rx: 1.2 }) : null,
    );
    this.elements.set(box.key, drawn);
    return drawn;
  }

  layerNote(box) {
    const nodes = box.entry.nodes[box.part];
    const layers = box.entry.children.length;
    if (layers) return plural(countLayers(box.entry), "layer");
    const time = box.seconds ? ` · ${secondsText(box.seconds)}` : "";
    const result = nodes.findLast((node) => this.stage.inputs[node].length) ?? nodes.at(-1);
    if (box.part === 0 && !time) return this.data.text(this.stage, "type", result);
    return plural(nodes.length, "node") + time;
  }

  chooseLayer(box) {
    const { entry, part } = box;
    this.toggle(entry.children.length ? entry.path : box.key);
    this.select({ kind: "layer", stage: this.stage, entry, part });
  }

  chooseNode(node) {
    this.chosen = node;
    this.mark();
    this.select({ kind: "node", stage: this.stage, node });
  }

  // Opens what hides a node, chooses it and brings it to the middle.
  reveal(node, focus = true) {
    for (const key of this.tree.keysTo(node)) this.open.add(key);
    this.draw();
    // The panel opens first: it takes room from the drawing.
    this.chooseNode(node);
    const box = this.scene.shown[node];
    if (box) this.centre(box);
    if (focus) this.elements.get(box?.key)?.focus({ preventScroll: true });
  }

  revealLayer(path) {
    const entry = this.tree.entries.get(path);
    if (!entry) return;
    for (let up = entry.parent; up && up !== this.tree.root; up = up.parent) this.open.add(up.path);
    this.draw();
    const box = this.scene.boxes.find((one) => one.entry === entry) ?? this.scene.frames.find((one) => one.entry === entry);
    if (!box) return;
    this.select({ kind: "layer", stage: this.stage, entry, part: box.part ?? 0 });
    this.centre(box);
    this.elements.get(box.key)?.focus({ preventScroll: true });
  }

  mark() {
    for (const drawn of this.elements.values()) drawn.classList.remove("chosen");
    for (const link of this.scene.links) link.drawn.classList.remove("chosen");
    const box = this.chosen === null ? null : this.scene.shown[this.chosen];
    if (!box) return;
    this.elements.get(box.key)?.classList.add("chosen");
    for (const link of this.scene.links) if (link.source === box || link.target === box) link.drawn.classList.add("chosen");
  }

  // Opens or closes, and keeps what was touched where it is on the screen.
  toggle(key) {
    const before = this.find(key);
    if (this.open.has(key)) this.open.delete(key);
    else this.open.add(key);
    this.draw();
    const after = this.find(key);
    if (before && after) {
      this.window.x += (before.x - after.x) * this.window.scale;
      this.window.y += (before.y - after.y) * this.window.scale;
    }
    this.move();
    this.drawing.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  }

  find(key) {
    return (
      this.scene.frames.find((frame) => frame.key === key) ??
      this.scene.boxes.find((box) => box.key === key || (box.kind === "layer" && box.entry.path === key))
    );
  }

  closeAll() {
    this.open.clear();
    this.draw();
    this.fit();
  }

  // The window.

  fit() {
    const { clientWidth, clientHeight } = this.svg;
    if (!clientWidth) return;
    const [margin, top] = [24, 52];
    const across = (clientWidth - 2 * margin) / Math.max(1, this.scene.width);
    const down = (clientHeight - top - 2 * margin) / Math.max(1, this.scene.height);
    const whole = Math.min(across, down, 1);
    // What would be too small to read begins at the top instead.
    const scale = whole >= 0.45 ? whole : Math.min(1, Math.max(across, 0.45));
    this.window = { scale, x: (clientWidth - this.scene.width * scale) / 2, y: top };
    if (this.scene.width * scale > clientWidth) this.window.x = margin;
    this.move();
    this.touched = false;
  }

  centre(box) {
    const { clientWidth, clientHeight } = this.svg;
    const scale = Math.max(this.window.scale, 0.8);
    this.window = { scale, x: clientWidth / 2 - (box.x + box.width / 2) * scale, y: clientHeight / 2 - (box.y + box.height / 2) * scale };
    this.move();
  }

  zoom(factor, x = this.svg.clientWidth / 2, y = this.svg.clientHeight / 2) {
    const scale = Math.min(ZOOM.most, Math.max(ZOOM.least, this.window.scale * factor));
    const grown = scale / this.window.scale;
    this.window = { scale, x: x - (x - this.window.x) * grown, y: y - (y - this.window.y) * grown };
    this.move();
  }

  pan(x, y) {
    this.window.x += x;
    this.window.y += y;
    this.move();
  }

  move() {
    this.touched = true;
    const { x, y, scale } = this.window;
    this.drawing.setAttribute("transform", `translate(${round(x)} ${round(y)}) scale(${scale.toFixed(4)})`);
  }

  listen() {
    this.svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      const edge = this.svg.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - edge.left, event.clientY - edge.top);
    }, { passive: false });
    this.svg.addEventListener("keydown", (event) => {
      const actions = {
        "+": () => this.zoom(ZOOM.step), "=": () => this.zoom(ZOOM.step), "-": () => this.zoom(1 / ZOOM.step), 0: () => this.fit(),
        ArrowLeft: () => this.pan(60, 0), ArrowRight: () => this.pan(-60, 0), ArrowUp: () => this.pan(0, 60), ArrowDown: () => this.pan(0, -60),
      };
      if (event.ctrlKey || event.metaKey || event.altKey || !actions[event.key]) return;
      event.preventDefault();
      actions[event.key]();
    });
    this.listenToPointers();
    // Until it is moved, the drawing fits its window.
    new ResizeObserver(() => this.touched || this.fit()).observe(this.svg);
  }

  // One pointer drags, two pinch. A click that follows a drag is none.
  listenToPointers() {
    const pointers = new Map();
    let moved = 0;
    this.svg.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event);
      moved = 0;
    });
    window.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
      moved += Math.abs(x) + Math.abs(y);
      if (pointers.size === 1) this.pan(x, y);
      if (pointers.size === 2) {
        const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1];
        const distance = (point) => Math.hypot(point.clientX - other.clientX, point.clientY - other.clientY);
        const edge = this.svg.getBoundingClientRect();
        const middle = [(event.clientX + other.clientX) / 2 - edge.left, (event.clientY + other.clientY) / 2 - edge.top];
        this.zoom(distance(event) / Math.max(1, distance(before)), ...middle);
      }
      pointers.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, (event) => pointers.delete(event.pointerId));
    this.svg.addEventListener("click", (event) => {
      if (moved > 6) event.stopPropagation();
      moved = 0;
    }, true);
  }
}

function pressed(event, act) {
  if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  event.stopPropagation();
  act();
}

function shortened(text, most) {
  const room = Math.max(4, Math.floor(most));
  return text.length <= room ? text : `${text.slice(0, Math.ceil(room * 0.6) - 1)}…${text.slice(text.length - Math.floor(room * 0.4))}`;
}

function countLayers(entry) {
  return entry.children.length ? entry.children.reduce((sum, child) => sum + countLayers(child), 0) : 1;
}
