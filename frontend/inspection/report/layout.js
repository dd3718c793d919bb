// Layered drawing of directed graphs: rows, order within them, and places, in time bounded by the graph's size.
"use strict";

const ROW_GAP = 34;
const COLUMN_GAP = 22;
const MOST_BENDS = 4000; // of all links together; beyond, links are drawn straight
const SWEEPS = 10;

// items: {left, right, height}, extents from an anchor that is aligned along chains; links: [source, target] by index.
// Items come in topological order, so a link that runs against it closes a cycle and is left out.
// Returns {places: [{x, y}] of anchors and tops, routes: Map "source,target" → [[x, y]], left, right, height}.
function arrange(items, links) {
  const down = uniqueLinks(links);
  const rank = assignRows(items.length, down);
  const rows = [];
  const cells = items.map((item, index) => ({ ...item, index, up: [], down: [], x: 0 }));
  cells.forEach((cell, index) => (rows[rank[index]] ??= []).push(cell));
  for (let row = 0; row < rows.length; row++) rows[row] ??= [];
  const chains = threadLinks(cells, rows, rank, down);
  orderRows(rows);
  placeRows(rows);
  return measure(cells, rows, chains);
}

function uniqueLinks(links) {
  const seen = new Set();
  return links.filter(([source, target]) => {
    const key = `${source},${target}`;
    if (source >= target || seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

// Below all sources; what only feeds others (an input, a weight) goes down to just above its first reader.
function assignRows(count, links) {
  const rank = new Array(count).fill(0);
  const readers = Array.from({ length: count }, () => []);
  const sources = new Array(count).fill(0);
  for (const [source, target] of links) readers[source].push(target), sources[target]++;
  for (let node = 0; node < count; node++) for (const reader of readers[node]) rank[reader] = Math.max(rank[reader], rank[node] + 1);
  for (let node = count - 1; node >= 0; node--) {
    if (!sources[node] && readers[node].length) rank[node] = Math.min(...readers[node].map((reader) => rank[reader])) - 1;
  }
  const lone = links.length ? Math.max(...rank) + 1 : 0;
  let column = 0;
  for (let node = 0; node < count; node++) {
    if (!sources[node] && !readers[node].length) rank[node] = links.length ? lone + Math.floor(column++ / 4) : Math.floor(column++ / 4);
  }
  const lowest = Math.min(...rank, 0);
  return rank.map((row) => row - lowest);
}

// Long links take a place in each row that they pass.
function threadLinks(cells, rows, rank, links) {
  let budget = MOST_BENDS;
  return links.map(([source, target]) => {
    const span = rank[target] - rank[source] - 1;
    const chain = [cells[source]];
    if (span <= budget) {
      budget -= span;
      for (let row = rank[source] + 1; row < rank[target]; row++) {
        const bend = { left: 5, right: 5, height: 0, bend: true, up: [], down: [], x: 0 };
        rows[row].push(bend);
        chain.push(bend);
      }
      chain.push(cells[target]);
      for (let step = 1; step < chain.length; step++) {
        chain[step - 1].down.push(chain[step]);
        chain[step].up.push(chain[step - 1]);
      }
    } else chain.push(cells[target]);
    return { source, target, chain };
  });
}

function orderRows(rows) {
  const number = (row) => row.forEach((cell, order) => (cell.order = order));
  rows.forEach(number);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const downward = sweep % 2 === 0;
    const sequence = downward ? rows : [...rows].reverse();
    for (const row of sequence) {
      const middle = new Map(row.map((cell) => [cell, barycentre(downward ? cell.up : cell.down, cell.order)]));
      row.sort((a, b) => middle.get(a) - middle.get(b));
      number(row);
    }
  }
}

function barycentre(neighbours, otherwise) {
  if (!neighbours.length) return otherwise;
  return neighbours.reduce((sum, cell) => sum + cell.order, 0) / neighbours.length;
}

function placeRows(rows) {
  for (const row of rows) settle(row, row.map(() => 0));
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const downward = sweep % 2 === 0;
    const sequence = downward ? rows : [...rows].reverse();
    for (const row of sequence) {
      settle(row, row.map((cell) => wish(downward ? cell.up : cell.down, cell.x)));
    }
  }
  // What has one source stands straight below it.
  for (const row of rows) settle(row, row.map((cell) => wish(cell.up.length ? cell.up : cell.down, cell.x)));
  // What nothing is linked to stands where most others do.
  const linked = rows.flat().filter((cell) => cell.up.length || cell.down.length);
  const middle = wish(linked, 0);
  for (const row of rows) {
    if (row.some((cell) => !linked.includes(cell))) settle(row, row.map((cell) => (linked.includes(cell) ? cell.x : middle)));
  }
}

// The middle of the neighbours: of items, where there are any, so that chains are straight and long links go round them.
function wish(neighbours, otherwise) {
  if (!neighbours.length) return otherwise;
  const items = neighbours.filter((cell) => !cell.bend);
  const places = (items.length ? items : neighbours).map((cell) => cell.x).sort((a, b) => a - b);
  const middle = places.length >> 1;
  return places.length % 2 ? places[middle] : (places[middle - 1] + places[middle]) / 2;
}

// The places nearest to those wished for (least squares) that keep order and distances: pooled adjacent violators.
function settle(row, wishes) {
  const offsets = [0];
  for (let at = 1; at < row.length; at++) offsets.push(offsets[at - 1] + row[at - 1].right + COLUMN_GAP + row[at].left);
  const pools = [];
  row.forEach((cell, at) => {
    let pool = { sum: (wishes[at] - offsets[at]) * weight(cell), weight: weight(cell), count: 1 };
    while (pools.length && pools.at(-1).sum / pools.at(-1).weight > pool.sum / pool.weight) {
      const before = pools.pop();
      pool = { sum: before.sum + pool.sum, weight: before.weight + pool.weight, count: before.count + pool.count };
    }
    pools.push(pool);
  });
  let at = 0;
  for (const pool of pools) {
    for (let member = 0; member < pool.count; member++, at++) row[at].x = pool.sum / pool.weight + offsets[at];
  }
}

function weight(cell) {
  return cell.bend ? 0.1 : 1;
}

function measure(cells, rows, chains) {
  let top = 0;
  for (const row of rows) {
    const height = Math.max(0, ...row.map((cell) => cell.height));
    for (const cell of row) cell.y = top + (height - cell.height) / 2;
    if (row.length) top += height + ROW_GAP;
  }
  const all = rows.flat();
  const left = Math.min(0, ...all.map((cell) => cell.x - cell.left));
  const right = Math.max(0, ...all.map((cell) => cell.x + cell.right));
  const routes = new Map();
  for (const { source, target, chain } of chains) {
    routes.set(`${source},${target}`, chain.filter((cell) => cell.bend).map((cell) => [cell.x - left, cell.y]));
  }
  return {
    places: cells.map((cell) => ({ x: cell.x - left, y: cell.y })),
    routes,
    width: right - left,
    height: Math.max(0, top - ROW_GAP),
  };
}
