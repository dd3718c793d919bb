// What is drawn of a graph: layers as boxes in nested frames, opened down to the nodes of each part.
"use strict";

const BOX = { width: 184, height: 44, gap: 30 };
const NODE = { height: 36, least: 76, most: 220 };
const FRAME = { padding: 14, title: 28 };
const GATHERED_FROM = 40; // layers side by side from which on those of a common name are one box
const SHOWN_AT_ONCE = 60; // nodes of a graph without layers that are shown from the begin
const MOST_NODES = 1200; // of one frame that are laid out as a graph; more stand in a grid

// The layers of a stage by their paths. An entry has children, and nodes of its own in three parts.
class LayerTree {
  constructor(data, stage) {
    this.data = data;
    this.stage = stage;
    this.root = this.entry("", "", null);
    this.entries = new Map([["", this.root]]);
    this.home = new Array(stage.number.length).fill(null);
    stage.number.forEach((_, node) => {
      if (data.isConstant(stage, node) && !stage.results.has(node)) return;
      const home = this.at(data.text(stage, "layer", node));
      home.own[stage.part[node]].push(node);
      this.home[node] = home;
    });
    this.gather(this.root);
    this.finish(this.root);
  }

  entry(path, name, parent) {
    return { path, name, parent, children: [], own: [[], [], []], nodes: [[], [], []], first: Infinity };
  }

  at(path) {
    if (!path) return this.at("graph");
    if (!this.entries.has(path)) {
      const cut = path.lastIndexOf("/");
      const parent = cut < 0 ? this.root : this.at(path.slice(0, cut));
      const entry = this.entry(path, path.slice(cut + 1), parent);
      parent.children.push(entry);
      this.entries.set(path, entry);
    }
    return this.entries.get(path);
  }

  // Gathers layers whose names begin alike ("stage_1_…") where there are too many to be seen at once: a run of them in
  // the order of the graph, and what has no forward node any more.
  gather(entry, most = GATHERED_FROM) {
    if (entry.children.length < most) return;
    const skipped = entry.stem ? 0 : 1;
    for (let words = skipped; words < 5; words++) {
      const runs = this.runs(entry.children, words);
      const largest = Math.max(...runs.map((run) => run.members.length));
      if (largest < 2 || largest > entry.children.length / 2) continue;
      entry.children = runs.flatMap((run) => (run.members.length < 2 ? run.members : [this.group(entry, run)]));
      for (const child of entry.children) if (child.stem) this.gather(child, GATHERED_FROM / 4);
      return;
    }
  }

  runs(children, words) {
    const runs = [];
    const byStem = new Map();
    for (const child of children) {
      const split = child.name.split("_");
      const stem = words && split.length > words ? split.slice(0, words).join("_") : null;
      const known = stem && byStem.get(stem);
      if (known && (known === runs.at(-1) || this.forwardless(child))) known.members.push(child);
      else {
        runs.push({ stem, members: [child] });
        if (stem && !known) byStem.set(stem, runs.at(-1));
      }
    }
    return runs;
  }

  forwardless(entry) {
    return !entry.own[0].some((node) => this.stage.inputs[node].length) && entry.children.every((child) => this.forwardless(child));
  }

  group(parent, { stem, members }) {
    const path = `${parent.path.replace(/…$/, "")}${parent.path && !parent.stem ? "/" : ""}${stem}_…`;
    const group = this.entry(path, stem, parent);
    group.stem = stem;
    group.children = members;
    for (const member of members) {
      member.parent = group;
      member.name = member.name.slice(stem.length + 1);
    }
    this.entries.set(path, group);
    return group;
  }

  finish(entry) {
    for (const child of entry.children) this.finish(child);
    entry.children.sort((a, b) => a.first - b.first);
    entry.nodes = entry.own.map((nodes, part) =>
      [...nodes, ...entry.children.flatMap((child) => child.nodes[part])].sort((a, b) => a - b),
    );
    entry.first = Math.min(...entry.nodes.map((nodes) => nodes.find((node) => this.stage.inputs[node].length) ?? nodes[0] ?? Infinity));
  }

  // What must be open for a node to be seen.
  keysTo(node) {
    const home = this.home[node];
    if (!home) return [];
    const keys = [partKey(home, this.stage.part[node])];
    for (let entry = home; entry && entry !== this.root; entry = entry.parent) if (entry.children.length) keys.push(entry.path);
    return keys;
  }
}

function partKey(entry, part) {
  return `${entry.path}|${part}`;
}

// Boxes, frames and links of a tree in which `open` has the paths of opened layers and the keys of opened parts.
class Scene {
  constructor(tree, open) {
    this.tree = tree;
    this.open = open;
    this.boxes = [];
    this.frames = [];
    this.shown = new Array(tree.stage.number.length).fill(null);
    this.hasUpdates = tree.root.nodes[2].length > 0;
    const block = this.inside(tree.root.children);
    this.width = block.width;
    this.height = block.height;
    block.put(0, 0);
    this.links = this.connect();
  }

  // The layers of one frame, laid out along the forward links between them.
  inside(entries) {
    const stage = this.tree.stage;
    const home = new Int32Array(stage.number.length).fill(-1);
    entries.forEach((entry, index) => entry.nodes[0].forEach((node) => (home[node] = index)));
    const links = [];
    entries.forEach((entry, target) =>
      entry.nodes[0].forEach((node) => {
        for (const operand of stage.inputs[node]) {
          const source = home[operand];
          if (source >= 0 && source !== target) links.push([source, target]);
        }
      }),
    );
    const linked = new Set(links.flat());
    const blocks = entries.map((entry, index) => this.entryBlock(entry, linked.has(index)));
    return this.arranged(blocks, links);
  }

  arranged(blocks, links) {
    const plan = arrange(blocks.map(({ left, right, height }) => ({ left, right, height })), links);
    const level = { plan };
    return {
      width: plan.width,
      height: plan.height,
      put: (x, y) => {
        level.x = x;
        level.y = y;
        blocks.forEach((block, index) => {
          const place = plan.places[index];
          block.put(x + place.x - block.left, y + place.y, level, index);
        });
      },
    };
  }

  // A layer: a frame of layers where it is opened, else its parts side by side.
  entryBlock(entry, linked) {
    if (entry.children.length && this.open.has(entry.path)) {
      const inner = [...entry.children];
      if (entry.own.some((nodes) => nodes.length)) inner.unshift({ ...entry, children: [], nodes: entry.own, name: "itself" });
      return this.frameBlock(entry, null, this.inside(inner));
    }
    const columns = entry.nodes.map((nodes, part) => (nodes.length ? this.partBlock(entry, part) : null));
    const lone = !linked && this.hasUpdates && columns[0] && !columns[1] && !columns[2];
    if (lone) columns.unshift(null, null);
    const last = columns.findLastIndex((column) => column);
    const widths = columns.slice(0, last + 1).map((column) => column?.width ?? BOX.width);
    const width = widths.reduce((sum, one) => sum + one + BOX.gap, -BOX.gap);
    const height = Math.max(...columns.map((column) => column?.height ?? 0));
    const left = Math.min(widths[0], BOX.width) / 2;
    return {
      left,
      right: width - left,
      height,
      put: (x, y, level, index) => {
        let at = x;
        widths.forEach((one, part) => {
          const column = columns[part];
          column?.put(at, y, level, index);
          at += one + BOX.gap;
        });
      },
    };
  }

  partBlock(entry, part) {
    const key = partKey(entry, part);
    if (!entry.children.length && this.open.has(key)) return this.frameBlock(entry, part, this.nodesBlock(entry.nodes[part]));
    return {
      width: BOX.width,
      height: BOX.height,
      put: (x, y, level, index) => {
        const box = { kind: "layer", key, entry, part, x, y, width: BOX.width, height: BOX.height, level, index };
        this.boxes.push(box);
        for (const node of entry.nodes[part]) this.shown[node] = box;
      },
    };
  }

  frameBlock(entry, part, inner) {
    const width = Math.max(inner.width + 2 * FRAME.padding, BOX.width);
    const height = inner.height + FRAME.title + FRAME.padding;
    const left = BOX.width / 2 + FRAME.padding;
    return {
      width,
      height,
      left,
      right: width - left,
      put: (x, y) => {
        this.frames.push({ key: part === null ? entry.path : partKey(entry, part), entry, part, x, y, width, height });
        inner.put(x + (width - inner.width) / 2, y + FRAME.title);
      },
    };
  }

  nodesBlock(nodes) {
    const { data, stage } = this.tree;
    const index = new Map(nodes.map((node, at) => [node, at]));
    const links = [];
    if (nodes.length <= MOST_NODES) {
      nodes.forEach((node, target) => {
        for (const operand of stage.inputs[node]) if (index.has(operand)) links.push([index.get(operand), target]);
      });
    }
    const blocks = nodes.map((node) => {
      const label = data.text(stage, "op", node);
      const type = data.text(stage, "type", node);
      const width = Math.min(NODE.most, Math.max(NODE.least, 20 + Math.max(7 * label.length, 6.1 * type.length)));
      return {
        left: width / 2,
        right: width / 2,
        height: NODE.height,
        put: (x, y, level, at) => {
          const box = { kind: "node", key: `%${node}`, node, label, type, part: stage.part[node], x, y, width, height: NODE.height, level, index: at };
          this.boxes.push(box);
          this.shown[node] = box;
        },
      };
    });
    return this.arranged(blocks, links);
  }

  // One link for all values that go from one box to another.
  connect() {
    const { stage } = this.tree;
    const links = new Map();
    stage.inputs.forEach((inputs, node) => {
      const target = this.shown[node];
      if (!target) return;
      for (const operand of inputs) {
        const source = this.shown[operand];
        if (!source || source === target) continue;
        const key = `${source.key}→${target.key}`;
        if (!links.has(key)) links.set(key, { source, target, values: new Set() });
        links.get(key).values.add(operand);
      }
    });
    return [...links.values()].map((link) => ({ ...link, ...routed(link) }));
  }
}

// The path of a link, and whether it runs between neighbours.
function routed({ source, target }) {
  const same = source.level === target.level && source.part === target.part && (source.kind === "node" || source.part === 0);
  const bends = same ? source.level.plan.routes.get(`${source.index},${target.index}`) : null;
  if (bends) {
    const { x, y } = source.level;
    const points = [bottomOf(source), ...bends.map((point) => [x + point[0], y + point[1]]), topOf(target)];
    return { path: smooth(points), near: true };
  }
  const apart = target.x >= source.x + source.width || source.x >= target.x + target.width;
  const beside = target.y < source.y + source.height && source.y < target.y + target.height;
  if (apart && beside) {
    const rightward = target.x > source.x;
    const from = [rightward ? source.x + source.width : source.x, source.y + source.height / 2];
    const to = [rightward ? target.x : target.x + target.width, target.y + target.height / 2];
    const bend = (to[0] - from[0]) / 2;
    return {
      path: `M${from.map(round)}C${round(from[0] + bend)},${round(from[1])} ${round(to[0] - bend)},${round(to[1])} ${to.map(round)}`,
      near: Math.abs(bend) < 60,
    };
  }
  const downward = target.y > source.y;
  const points = downward ? [bottomOf(source), topOf(target)] : [topOf(source), bottomOf(target)];
  return { path: smooth(points), near: Math.abs(points[0][1] - points[1][1]) < 90 };
}

function topOf(box) {
  return [box.x + box.width / 2, box.y];
}

function bottomOf(box) {
  return [box.x + box.width / 2, box.y + box.height];
}

function smooth(points) {
  let path = `M${points[0].map(round)}`;
  for (let at = 1; at < points.length; at++) {
    const [x0, y0] = points[at - 1];
    const [x1, y1] = points[at];
    const bend = (y1 - y0) / 2;
    path += `C${round(x0)},${round(y0 + bend)} ${round(x1)},${round(y1 - bend)} ${round(x1)},${round(y1)}`;
  }
  return path;
}

function round(number) {
  return Math.round(number * 10) / 10;
}
