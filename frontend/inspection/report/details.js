// The panel beside the drawing: what is known of the chosen node, layer, kernel or buffer, with links onward.
"use strict";

const MOST_LISTED = 12; // links of one kind; more are counted

class Details {
  // go: follows a link to {stage, node}, {layer} or {call}.
  constructor(data, root, go) {
    this.data = data;
    this.root = root;
    this.go = go;
    this.sourceStage = data.byName.has("gradient") ? "gradient" : "forward";
  }

  show(choice) {
    const content = { node: () => this.node(choice), layer: () => this.layer(choice), call: () => this.call(choice.call) }[choice.kind]();
    this.root.hidden = false;
    this.root.replaceChildren(
      element("button", { type: "button", class: "close", "aria-label": "Close details", onclick: () => this.close() }, "×"),
      ...content.flat(Infinity).filter(Boolean),
    );
    this.root.scrollTop = 0;
  }

  close() {
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  node({ stage, node }) {
    const { data } = this;
    const text = (property) => data.text(stage, property, node);
    const calls = this.callsOf(stage, node);
    const origins = data.provenance(stage, node);
    const forward = [...new Set(origins.map((origin) => origin.forward).filter((number) => number >= 0))];
    const previous = this.previous(stage, node);
    const result = stage.results.get(node);
    const source = data.stage(this.sourceStage);
    return [
      this.heading(`%${stage.number[node]}`, text("op"), stage.name),
      facts([
        ["type", code(text("type"))],
        ["role", text("role")],
        ["attributes", text("attributes") && code(text("attributes"))],
        ["result", result !== undefined && code(data.strings[result])],
        ["layer", this.layerLinks(data.strings[stage.layers[node]], stage)],
        ["part", stage.part[node] ? PARTS[stage.part[node]] : null],
        ["source", sourceLines(origins)],
        ["forward node", source && forward.length ? this.nodeLinks(source, forward.map((number) => source.place.get(number))) : null],
        ["operands", this.nodeLinks(stage, stage.inputs[node])],
        ["read by", this.nodeLinks(stage, stage.users[node])],
        ["came from", previous && this.nodeLinks(previous.stage, previous.nodes)],
        ["became", this.became(stage, node)],
      ]),
      calls.slice(0, 4).map((call) => this.kernel(call)),
      calls.length > 4 ? element("p", { class: "quiet" }, `and ${plural(calls.length - 4, "more kernel")}`) : null,
    ];
  }

  layer({ stage, entry, part }) {
    const { data } = this;
    const nodes = entry.nodes[part];
    const calls = [...new Set(nodes.flatMap((node) => (stage.name === "fused" ? this.callsOf(stage, node) : [])))].sort((a, b) => a - b);
    const ops = new Map();
    for (const node of nodes) {
      const op = data.text(stage, "role", node) || data.text(stage, "op", node);
      ops.set(op, (ops.get(op) ?? 0) + 1);
    }
    const path = entry.path.replace(/_…$/, "_*");
    return [
      this.heading(path, PARTS[part], stage.name),
      facts([
        ["layers", entry.children.length ? String(countLayers(entry)) : null],
        ["nodes", String(nodes.length)],
        ["ops", [...ops].sort((a, b) => b[1] - a[1]).slice(0, 10).map(([op, count]) => `${op}${count > 1 ? ` ×${count}` : ""}`).join(", ")],
        ["time", secondsText(data.seconds(calls))],
        ["source", sourceLines(nodes.slice(0, 50).flatMap((node) => data.provenance(stage, node)))],
        ["kernels", calls.length ? this.callLinks(calls, 6) : null],
        ["results", this.nodeLinks(stage, nodes.filter((node) => stage.results.has(node) || stage.users[node].some((user) => !nodes.includes(user))))],
      ]),
    ];
  }

  call(number) {
    const { data } = this;
    const call = data.calls[number];
    const fused = data.stage("fused");
    return [
      this.heading(call.title, data.strings[call.kind], `call ${number}`),
      facts([
        ["layers", this.layerLinks(data.strings[call.layers], fused)],
        ["nodes", this.nodeLinks(fused, call.members, 24)],
        ["buffers", listed(call.buffers.map(([name, type]) => [code(data.strings[name]), " ", element("span", { class: "quiet" }, data.strings[type])]))],
        ["shared with", data.functions[call.function].calls.length > 1 ? this.callLinks(data.functions[call.function].calls.filter((other) => other !== number)) : null],
      ]),
      this.kernel(number, true),
    ];
  }

  // A kernel's time, and its code, which is fetched when it is opened.
  kernel(number, open = false) {
    const { data } = this;
    const call = data.calls[number];
    const made = data.functions[call.function];
    const time = data.times.get(number);
    const listing = (title, stage, opened) => {
      if (!made[stage]) return null;
      const place = element("pre", { class: "code", tabindex: 0, "aria-label": `${title} of ${made.name}` });
      const fold = element("details", { class: "fold", "data-code": stage }, element("summary", {}, title, element("span", { class: "quiet" }, ` ${plural(made[stage][1], "line")}`)), place);
      const load = async () => (place.textContent ||= await data.code(stage, made[stage]));
      fold.addEventListener("toggle", () => fold.open && load());
      if (opened) fold.open = true;
      return fold;
    };
    return element(
      "section",
      { class: "kernel" },
      open ? null : element("h3", {}, "kernel ", this.link(call.title, { call: number })),
      facts([
        ["function", code(made.name)],
        ["time", time && `${secondsText(time.seconds)}${time.gflops ? ` · ${time.gflops.toPrecision(3)} GFLOP/s` : ""}${time.gbs ? ` · ${time.gbs.toPrecision(3)} GB/s` : ""}`],
      ]),
      listing("Loop IR", "scheduled", true),
      listing("LLVM IR", "llvm"),
      listing("Assembly", "assembly"),
    );
  }

  heading(name, kind, where) {
    return element("div", { class: "about" }, element("p", { class: "where" }, where), element("h2", {}, name, " ", element("span", { class: "kind" }, kind)));
  }

  // The calls in which a node ends up, through all stages between.
  callsOf(stage, node) {
    let nodes = [node];
    for (let at = stage; ; at = this.data.stage(at.following)) {
      nodes = [...new Set(nodes.flatMap((one) => at.next[one]))];
      if (at.following === "scheduled") return nodes;
    }
  }

  previous(stage, node) {
    const before = this.data.stages.find((other) => other.following === stage.name);
    if (!before) return null;
    before.became ??= before.next.reduce((map, targets, source) => {
      for (const target of targets) map.set(target, [...(map.get(target) ?? []), source]);
      return map;
    }, new Map());
    return { stage: before, nodes: before.became.get(node) ?? [] };
  }

  became(stage, node) {
    const targets = stage.next[node];
    if (!targets.length) return element("span", { class: "quiet" }, `nothing in ${stage.following}`);
    return stage.following === "scheduled" ? this.callLinks(targets) : [this.nodeLinks(this.data.stage(stage.following), targets), element("span", { class: "quiet" }, ` in ${stage.following}`)];
  }

  link(text, target) {
    return element("button", { type: "button", class: "link", onclick: () => this.go(target) }, text);
  }

  nodeLinks(stage, nodes, most = MOST_LISTED) {
    const found = [...new Set(nodes)].filter((node) => node !== undefined);
    if (!found.length) return null;
    return listed(
      found.slice(0, most).map((node) => {
        const name = `%${stage.number[node]} ${this.data.text(stage, "op", node)}`;
        const target = this.data.isConstant(stage, node) ? element("span", {}, `%${stage.number[node]} ${this.data.text(stage, "attributes", node)}`) : this.link(name, { stage: stage.name, node });
        return target;
      }),
      found.length - most,
    );
  }

  callLinks(calls, most = MOST_LISTED) {
    const link = (number) => this.link(`${number} ${this.data.calls[number].title}`, { call: number });
    return listed(calls.slice(0, most).map(link), calls.length - most);
  }

  layerLinks(paths, stage) {
    const found = paths.split(", ").filter(Boolean);
    return found.length ? listed(found.map((path) => this.link(path, { layer: path, stage: stage.name }))) : null;
  }
}

function facts(rows) {
  const shown = rows.filter(([, value]) => value && (!Array.isArray(value) || value.some(Boolean)));
  return element("dl", {}, shown.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function listed(items, more = 0) {
  return element("ul", {}, items.map((item) => element("li", {}, item)), more > 0 ? element("li", { class: "quiet" }, `and ${more} more`) : null);
}

function code(text) {
  return element("code", {}, text);
}

function sourceLines(origins) {
  const lines = [...new Set(origins.map((origin) => origin.source).filter(Boolean))];
  return lines.length ? listed(lines.slice(0, 4).map((line) => code(line)), lines.length - 4) : null;
}
