// Charts: the lifetimes of buffers in the arena with the peak, and measured time by layer.
"use strict";

const CHART = { left: 64, right: 14, top: 26, height: 340, gap: 34, curve: 90, bottom: 30 };

// The stage `memory`: calls to the right, addresses downward, below it the bytes alive during each call.
function memoryView(data, go) {
  const memory = data.memory;
  const readout = element("p", { class: "readout", "aria-live": "polite" }, "Point at a buffer, or move among them with the arrow keys.");
  const holders = memory.buffers.filter((buffer) => buffer.first <= memory.peak_call && memory.peak_call <= buffer.last).sort((a, b) => b.nbytes - a.nbytes);
  return pageOf(
    [
      ["peak", bytesText(memory.peak_bytes), `in call ${memory.peak_call}`],
      ["arena", bytesText(memory.arena_bytes), plural(memory.buffers.length, "buffer")],
      ["scratch", bytesText(memory.scratch_bytes), "for each thread"],
      ["calls", memory.calls.toLocaleString("en"), "in a step"],
    ],
    memory.buffers.length ? [lifetimes(memory, holders, readout, (call) => go({ call })), readout] : null,
    element("h2", {}, "Who holds the peak"),
    table(
      ["buffer", "size", "calls", "made by"],
      holders.slice(0, 40).map((buffer) => [code(buffer.name), bytesText(buffer.nbytes), `${buffer.first} – ${buffer.last}`, element("button", { type: "button", class: "link", onclick: () => go({ call: buffer.first }) }, breakable(buffer.owner))]),
      [1],
    ),
    holders.length > 40 ? element("p", { class: "quiet" }, `and ${holders.length - 40} more`) : null,
  );
}

// A page that begins with figures, each with its name and a note.
function pageOf(figures, ...content) {
  const tile = ([name, value, note]) => element("div", { class: "tile" }, element("span", { class: "quiet" }, name), element("strong", {}, value), element("span", { class: "quiet" }, note));
  return element("div", { class: "page" }, element("div", { class: "tiles" }, figures.map(tile)), ...content);
}

function lifetimes(memory, holders, readout, choose) {
  const width = 1000;
  const inner = width - CHART.left - CHART.right;
  const across = inner / memory.calls;
  const down = CHART.height / memory.arena_bytes;
  const curveTop = CHART.top + CHART.height + CHART.gap;
  const height = curveTop + CHART.curve + CHART.bottom;
  const held = new Set(holders);
  const x = (call) => CHART.left + call * across;
  const y = (offset) => CHART.top + offset * down;
  const peak = x(memory.peak_call + 0.5);
  const drawn = memory.buffers.map((buffer, at) => {
    const say = () => (readout.textContent = `${buffer.name}: ${bytesText(buffer.nbytes)} at ${bytesText(buffer.offset)}, calls ${buffer.first} – ${buffer.last}, made by ${buffer.owner}`);
    return svgElement(
      "rect",
      {
        class: `buffer hue-${hueOf(buffer)}${held.has(buffer) ? " held" : ""}`,
        x: round(x(buffer.first)), y: round(y(buffer.offset)),
        width: round(Math.max(1.2, (buffer.last - buffer.first + 1) * across - 0.6)), height: round(Math.max(1.2, buffer.nbytes * down - 0.6)),
        rx: 1.5, tabindex: at ? -1 : 0, role: "button",
        "aria-label": `${buffer.name}, ${bytesText(buffer.nbytes)}, calls ${buffer.first} to ${buffer.last}, ${buffer.owner}`,
        onmouseenter: say, onfocus: say, onclick: () => choose(buffer.first),
        onkeydown: (event) => {
          const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
          if (step) {
            event.preventDefault();
            const next = drawn[(at + step + drawn.length) % drawn.length];
            drawn.forEach((rect) => rect.setAttribute("tabindex", rect === next ? 0 : -1));
            next.focus();
          } else pressed(event, () => choose(buffer.first));
        },
      },
    );
  });
  let path = `M${CHART.left} ${curveTop + CHART.curve}`;
  memory.alive.forEach((alive, call) => (path += `V${round(curveTop + CHART.curve * (1 - alive / Math.max(1, memory.peak_bytes)))}H${round(x(call + 1))}`));
  const grid = steps(memory.arena_bytes, 5).map((offset) => [
    svgElement("path", { class: "grid", d: `M${CHART.left} ${round(y(offset))}h${inner}` }),
    svgElement("text", { class: "tick end", x: CHART.left - 8, y: round(y(offset)) + 4 }, bytesText(offset)),
  ]);
  const calls = steps(memory.calls, 10).map((call) => svgElement("text", { class: "tick", x: x(call + 0.5), y: height - 10 }, String(call)));
  const anchor = memory.peak_call > memory.calls * 0.8 ? "end" : memory.peak_call < memory.calls * 0.2 ? "start" : "middle";
  return element(
    "div",
    { class: "chart", tabindex: -1 },
    svgElement(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Lifetimes of buffers" },
      grid,
      drawn,
      svgElement("path", { class: "peak", d: `M${round(peak)} ${CHART.top - 6}V${curveTop + CHART.curve}` }),
      svgElement("text", { class: "peak-name", x: peak, y: CHART.top - 11, "text-anchor": anchor }, `peak ${bytesText(memory.peak_bytes)}`),
      svgElement("path", { class: "alive", d: `${path}V${curveTop + CHART.curve}Z` }),
      svgElement("text", { class: "tick end", x: CHART.left - 8, y: curveTop + 8 }, bytesText(memory.peak_bytes)),
      svgElement("text", { class: "tick end", x: CHART.left - 8, y: curveTop + CHART.curve }, "alive"),
      calls,
    ),
  );
}

// Round numbers from 0 to below `total`, at most so many.
function steps(total, most) {
  const raw = total / most;
  const size = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  const step = [1, 2, 5, 10].map((digit) => digit * size).find((one) => one >= raw);
  return Array.from({ length: Math.ceil(total / step) }, (_, at) => at * step);
}

// Equal layers have equal colours.
function hueOf(buffer) {
  const name = buffer.layers[0] ?? buffer.owner;
  let hash = 7;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 9973;
  return hash % 8;
}

// The tab `profile`: time by layer, and every kernel beside what this machine could do.
function profileView(data, go) {
  const profile = data.profile;
  const layers = [...profile.layers].sort((a, b) => b.seconds - a.seconds);
  const kernels = [...profile.kernels].sort((a, b) => b.seconds - a.seconds);
  const total = kernels.reduce((sum, kernel) => sum + kernel.seconds, 0);
  const flops = kernels.reduce((sum, kernel) => sum + (kernel.flops ?? 0), 0);
  return pageOf(
    [
      ["step", secondsText(profile.wall_seconds), "wall time"],
      ["kernels", secondsText(total), `${((100 * total) / profile.wall_seconds).toFixed(0)} % of it`],
      ["speed", `${(flops / profile.wall_seconds / 1e9).toPrecision(3)}`, "GFLOP/s"],
    ],
    profile.doubt ? element("p", { class: "quiet" }, profile.doubt) : null,
    element("h2", {}, "By layer"),
    layerBars(layers, total, go),
    element("h2", {}, "By kernel"),
    table(
      ["call", "kernel", "time", "share", "GFLOP/s", "GB/s", "of roof"],
      kernels.slice(0, 300).map((kernel) => [
        String(kernel.call),
        element("button", { type: "button", class: "link", onclick: () => go({ call: kernel.call }) }, breakable(kernel.name)),
        secondsText(kernel.seconds),
        `${((100 * kernel.seconds) / total).toFixed(1)} %`,
        kernel.gflops ? kernel.gflops.toPrecision(3) : "",
        kernel.gbs ? kernel.gbs.toPrecision(3) : "",
        kernel.bound_share ? `${(100 * kernel.bound_share).toFixed(0)} %` : "",
      ]),
      [0, 2, 3, 4, 5, 6],
    ),
  );
}

function layerBars(layers, total, go) {
  const most = Math.max(...layers.map((layer) => layer.seconds));
  const rows = (some) =>
    some.map((layer) => {
      const forward = element("span", { class: "bar forward" });
      const gradient = element("span", { class: "bar gradient" });
      const known = (layer.forward_seconds ?? 0) + (layer.gradient_seconds ?? 0);
      forward.style.width = `${(100 * (known ? layer.forward_seconds : layer.seconds)) / most}%`;
      gradient.style.width = `${(100 * (known ? layer.gradient_seconds : 0)) / most}%`;
      return element(
        "li",
        {},
        element("button", { type: "button", class: "link name", title: layer.path, onclick: () => go({ layer: layer.path, stage: "fused" }) }, layer.path || "(none)"),
        element("span", { class: "bars" }, forward, gradient),
        element("span", { class: "value" }, `${secondsText(layer.seconds)}`, element("span", { class: "quiet" }, ` ${((100 * layer.seconds) / total).toFixed(1)} %`)),
      );
    });
  const list = element("ol", { class: "layer-bars" }, rows(layers.slice(0, 30)));
  const rest = layers.slice(30);
  const more = rest.length ? element("button", { type: "button", class: "more", onclick: () => (list.append(...rows(rest)), more.remove()) }, `Show ${rest.length} more`) : null;
  return [list, more];
}

function table(names, rows, numeric = []) {
  const cell = (tag, value, at) => element(tag, { class: numeric.includes(at) ? "number" : null, scope: tag === "th" ? "col" : null }, value);
  return element(
    "div",
    { class: "scroll" },
    element("table", {}, element("thead", {}, element("tr", {}, names.map((name, at) => cell("th", name, at)))), element("tbody", {}, rows.map((row) => element("tr", {}, row.map((value, at) => cell("td", value, at)))))),
  );
}
