// Puts the report together: tabs, search, links between stages, and keys.
"use strict";

class App {
  constructor(data) {
    this.data = data;
    this.panel = document.getElementById("panel");
    this.tabs = document.getElementById("tabs");
    this.details = new Details(data, document.getElementById("details"), (target) => this.go(target));
    this.views = new Map();
    this.shown = { tab: null, form: null };
    this.forms = new Map();
    this.search = new Search(data, document.getElementById("search"), document.getElementById("found"), (hit) => this.go(hit, false));
  }

  start() {
    const { data } = this;
    const names = [...data.stages.map((stage) => stage.name), ...(data.profile ? ["profile"] : [])];
    this.tabs.append(...names.map((name) => element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", onclick: () => this.show(name) }, name)));
    this.tabs.addEventListener("keydown", (event) => this.moveTab(event, names));
    const graph = ["fused", "simplified", "forward"].find((name) => data.stage(name)?.kind === "graph");
    document.getElementById("facts").textContent = this.facts();
    document.getElementById("texts").hidden = true;
    for (const id of ["tabs", "main"]) document.getElementById(id).hidden = false;
    document.querySelector(".search").hidden = false;
    document.addEventListener("keydown", (event) => this.key(event));
    return this.show(graph ?? names[0]);
  }

  facts() {
    const { data } = this;
    const nodes = data.stage("fused") ? [plural(data.stage("fused").number.length, "node")] : [];
    return [...nodes, `${plural(data.calls.length, "call")} of ${plural(data.functions.length, "kernel")}`, `${bytesText(data.memory.peak_bytes)} at the peak`, data.machine].join(" · ");
  }

  async show(name, form = this.forms.get(name)) {
    const stage = this.data.stage(name);
    const forms = stage?.kind === "graph" ? ["graph", "text"] : name === "scheduled" ? ["calls", "text"] : name === "memory" ? ["chart", "text"] : ["only"];
    const chosen = forms.includes(form) ? form : forms[0];
    this.forms.set(name, chosen);
    this.shown = { tab: name, form: chosen };
    for (const tab of this.tabs.children) {
      const on = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      if (on) this.bringIntoView(tab);
    }
    this.panel.setAttribute("aria-labelledby", `tab-${name}`);
    const key = `${name} ${chosen}`;
    if (!this.views.has(key)) this.views.set(key, await this.make(name, chosen));
    if (this.shown.tab !== name || this.shown.form !== chosen) return;
    const view = this.views.get(key);
    const switcher = forms.length > 1 ? this.switcher(name, forms, chosen) : null;
    this.panel.replaceChildren(...[switcher, view instanceof GraphView ? view.root : view].filter(Boolean));
  }

  // Scrolls the tabs alone: after `scrollIntoView` the Tab key would go on from there, also when a page was just opened.
  bringIntoView(tab) {
    const left = tab.offsetLeft - this.tabs.offsetLeft;
    const most = left + tab.offsetWidth - this.tabs.clientWidth;
    this.tabs.scrollLeft = Math.min(left, Math.max(most, this.tabs.scrollLeft));
  }

  switcher(name, forms, chosen) {
    return element(
      "div",
      { class: "forms", role: "group", "aria-label": "Shown as" },
      forms.map((form) => element("button", { type: "button", "aria-pressed": String(form === chosen), onclick: () => this.show(name, form) }, form)),
    );
  }

  async make(name, form) {
    const { data } = this;
    if (form === "graph") return new GraphView(data, data.stage(name), (choice) => this.details.show(choice));
    if (form === "calls") return callsView(data, (target) => this.go(target));
    if (form === "chart") return memoryView(data, (target) => this.go(target));
    if (name === "profile") return profileView(data, (target) => this.go(target));
    return textView(data, name);
  }

  // Follows a link; `focus` says whether the keyboard goes along.
  async go(target, focus = true) {
    if (target.call !== undefined) return this.details.show({ kind: "call", call: target.call });
    await this.show(target.stage, "graph");
    const view = this.views.get(`${target.stage} graph`);
    if (target.layer !== undefined) view.revealLayer(target.layer, focus);
    else view.reveal(target.node, focus);
  }

  key(event) {
    const typing = event.target.matches?.("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.search.input.focus();
    }
    if (event.key === "Escape") {
      if (typing) event.target.blur();
      else this.details.close();
    }
  }

  moveTab(event, names) {
    const at = names.indexOf(this.shown.tab);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const name = names[(next + names.length) % names.length];
    this.show(name);
    document.getElementById(`tab-${name}`).focus();
  }

}

// Finds nodes by layer, op, type or kernel, in the graph that is shown, else in the last one; Enter goes on to the next.
class Search {
  constructor(data, input, output, go) {
    Object.assign(this, { data, input, output, go, hits: [], at: -1 });
    input.addEventListener("input", () => this.find());
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.next(event.shiftKey ? -1 : 1);
    });
  }

  stage() {
    const shown = this.data.stage(document.querySelector('[role="tab"][aria-selected="true"]')?.textContent);
    return shown?.kind === "graph" ? shown : this.data.stages.findLast((stage) => stage.kind === "graph");
  }

  find() {
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const stage = this.stage();
    this.found = `${stage.name} ${this.input.value}`;
    this.hits = words.length
      ? stage.number.map((_, node) => node).filter((node) => {
          if (this.data.isConstant(stage, node) && !stage.results.has(node)) return false;
          return words.every((word) => this.textOf(stage, node).includes(word));
        })
      : [];
    // What is so itself comes before what is in a kernel of that name.
    const itself = (node) => words.every((word) => this.ownText(stage, node).includes(word));
    this.hits = [...this.hits.filter(itself), ...this.hits.filter((node) => !itself(node))];
    this.at = -1;
    this.say(words.length > 0);
  }

  ownText(stage, node) {
    const names = ["op", "type", "layer", "layers", "role", "attributes"].map((name) => this.data.text(stage, name, node));
    return [`%${stage.number[node]}`, ...names, PARTS[stage.part[node]]].join(" ").toLowerCase();
  }

  textOf(stage, node) {
    const kernels = stage.kernels[node].map((group) => `${stage.groups[group].name} ${stage.groups[group].kind}`);
    const functions = stage.following === "scheduled" ? stage.next[node].map((call) => this.data.functions[this.data.calls[call].function].name) : [];
    stage.searched ??= [];
    stage.searched[node] ??= [this.ownText(stage, node), ...kernels, ...functions].join(" ").toLowerCase();
    return stage.searched[node];
  }

  next(step) {
    const stage = this.stage();
    if (this.found !== `${stage.name} ${this.input.value}`) this.find();
    if (!this.hits.length) return;
    this.at = (this.at + step + this.hits.length) % this.hits.length;
    if (this.at < 0) this.at = this.hits.length - 1;
    this.say(true);
    this.go({ stage: stage.name, node: this.hits[this.at] });
  }

  say(asked) {
    this.output.textContent = !asked ? "" : this.at < 0 ? plural(this.hits.length, "node") : `${this.at + 1} / ${this.hits.length}`;
  }
}

Data.read()
  .then((data) => {
    window.report = new App(data);
    return window.report.start();
  })
  .then(() => document.body.setAttribute("data-ready", ""));
