"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const chart = document.getElementById("chart");
  const readout = document.getElementById("readout");
  const cards = document.getElementById("cards");
  const wavelength = data.wavelength;
  const first = wavelength[0], last = wavelength[wavelength.length - 1];
  const margin = { left: 64, right: 12, top: 56, bottom: 40 };
  const gap = 34;
  const PARTS = ["model", "input", "excess"];
  const PANELS = ["flux", "information", "movement"];
  let label = 0, at = Math.round(wavelength.length / 2), width = 0, panelHeight = 150;
  let cursor = null, dots = [];

  const minus = (text) => text.replace(/-/g, "−");
  const digits = (value, count) =>
    value === null ? "unknown" : minus(Number(value.toPrecision(count)).toString());
  const signed = (value) => (value > 0 ? "+" : "") + minus(value.toPrecision(2));
  const decimals = (value, error) => {
    if (value === null || !(error > 0)) return digits(value, 4);
    return minus(value.toFixed(Math.max(0, 1 - Math.floor(Math.log10(error)))));
  };

  function node(parent, name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    parent.appendChild(made);
    return made;
  }

  function element(parent, name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    parent.appendChild(made);
    return made;
  }

  function makeCards() {
    data.labels.forEach((one, k) => {
      const card = element(cards, "button", undefined, "card");
      card.type = "button";
      element(card, "span", one.description);
      element(card, "b", `${decimals(one.value, one.error)} ± ${decimals(one.error, one.error)} ${one.unit}`);
      const bar = element(card, "div", undefined, "bar");
      for (const part of PARTS) {
        const share = element(bar, "div", undefined, part);
        share.style.width = `${100 * (one.parts[part] / one.error) ** 2}%`;
        share.title = `${part}: ${digits(one.parts[part], 2)} ${one.unit}`;
      }
      const parts = PARTS.map((part) => `${part} ${digits(one.parts[part], 2)}`);
      element(card, "small", parts.join(", "));
      element(card, "small", `95.4 %: ± ${digits(one.error_95, 2)}`);
      if (one.known !== null) element(card, "small", `known: ${decimals(one.known, one.error)}`);
      card.addEventListener("click", () => { label = k; draw(); });
    });
  }

  const x = (nm) =>
    margin.left + (width - margin.left - margin.right) * (nm - first) / (last - first);

  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
    return found;
  }

  function panel(number, title, series, band) {
    const kind = PANELS[number];
    const top = margin.top + number * (panelHeight + gap);
    const values = series.concat(band ? band[0] : [], band ? band[1] : []);
    let low = Math.min(0, ...values), high = Math.max(0, ...values);
    const room = 0.05 * (high - low || 1);
    low -= low < 0 ? room : 0;
    high += room;
    const y = (v) => top + panelHeight * (high - v) / (high - low);
    for (const tick of ticks(low, high, 4)) {
      node(chart, "line", { x1: margin.left, x2: width - margin.right, y1: y(tick), y2: y(tick),
        class: tick === 0 ? "zero" : "grid" });
      node(chart, "text", { x: margin.left - 6, y: y(tick) + 4, "text-anchor": "end" },
        digits(tick, 6));
    }
    const path = (v) => v.map((one, i) => `${x(wavelength[i]).toFixed(1)},${y(one).toFixed(1)}`);
    if (band) {
      const around = path(band[1]).concat(path(band[0]).reverse());
      node(chart, "polygon", { points: around.join(" "), class: kind });
    }
    node(chart, "polyline", { points: path(series).join(" "), class: kind });
    node(chart, "text", { x: margin.left, y: top - 8, class: "title" }, title);
    return (index) => y(series[index]);
  }

  function lines(height) {
    const ends = [-Infinity, -Infinity];
    for (const [title, low, high] of data.lines) {
      const middle = x(0.5 * (low + high));
      node(chart, "rect", { x: x(low), width: Math.max(1, x(high) - x(low)), y: margin.top,
        height, class: "mark" });
      const half = 3.6 * title.length + 2;
      const row = ends.findIndex((end) => middle - half > end);
      if (row < 0) continue;
      ends[row] = middle + half;
      node(chart, "text", { x: middle, y: margin.top - 25 - 13 * row, "text-anchor": "middle",
        "font-size": 11 }, title);
    }
  }

  function draw() {
    width = Math.max(240, chart.clientWidth);
    margin.left = width < 480 ? 46 : 64;
    panelHeight = width < 480 ? 130 : width < 900 ? 150 : 170;
    const height = 3 * panelHeight + 2 * gap;
    const total = margin.top + height + margin.bottom;
    chart.replaceChildren();
    chart.setAttribute("height", total);
    chart.setAttribute("viewBox", `0 0 ${width} ${total}`);
    const chosen = data.labels[label];
    const power = Math.floor(Math.log10(Math.max(...data.flux)));
    const flux = data.flux.map((f) => f / 10 ** power);
    const error = data.flux_error.map((e) => e / 10 ** power);
    lines(height);
    const heights = [
      panel(0, `flux [1e${minus(String(power))} W m⁻² nm⁻¹]`, flux,
        [flux.map((f, i) => f - error[i]), flux.map((f, i) => f + error[i])]),
      panel(1, `information on ${chosen.name} [% / nm]`, chosen.information),
      panel(2, `movement of ${chosen.name} per sigma [${chosen.unit}]`, chosen.movement),
    ];
    for (const tick of ticks(first, last, width / 90)) {
      node(chart, "text", { x: x(tick), y: margin.top + height + 16, "text-anchor": "middle" },
        tick);
    }
    node(chart, "text", { x: (margin.left + width) / 2, y: total - 6, "text-anchor": "middle" },
      "wavelength [nm]");
    cursor = node(chart, "line", { id: "cursor", y1: margin.top, y2: margin.top + height });
    dots = heights.map((y, number) => [y, node(chart, "circle", { r: 4, class: PANELS[number] })]);
    [...cards.children].forEach((card, k) => card.setAttribute("aria-pressed", k === label));
    point(at);
  }

  function point(index) {
    at = Math.min(wavelength.length - 1, Math.max(0, index));
    cursor.setAttribute("x1", x(wavelength[at]));
    cursor.setAttribute("x2", x(wavelength[at]));
    for (const [y, dot] of dots) {
      dot.setAttribute("cx", x(wavelength[at]));
      dot.setAttribute("cy", y(at));
    }
    readout.replaceChildren();
    const ratio = data.flux[at] / data.flux_error[at];
    element(readout, "p", `${wavelength[at]} nm: flux ${minus(data.flux[at].toPrecision(4))} ± ` +
      `${minus(data.flux_error[at].toPrecision(2))} W m⁻² nm⁻¹ (S/N ${digits(ratio, 3)})`);
    const chosen = data.labels[label];
    chart.setAttribute("aria-valuenow", wavelength[at]);
    chart.setAttribute("aria-valuetext", `${wavelength[at]} nm: ${chosen.description} moves by ` +
      `${signed(chosen.movement[at])} ${chosen.unit} for one sigma more flux`);
    const table = element(element(readout, "div", undefined, "scroll"), "table");
    const head = element(element(table, "thead"), "tr");
    for (const title of ["label", "one sigma more flux here moves it by", "information here"]) {
      element(head, "th", title).scope = "col";
    }
    const body = element(table, "tbody");
    data.labels.forEach((one, k) => {
      const row = element(body, "tr", undefined, k === label ? "chosen" : "");
      element(row, "th", one.description).scope = "row";
      element(row, "td", `${signed(one.movement[at])} ${one.unit}`);
      element(row, "td", `${one.information[at].toPrecision(2)} % / nm`);
    });
  }

  function nearest(clientX) {
    const box = chart.getBoundingClientRect();
    const inside = ((clientX - box.left) * width) / box.width - margin.left;
    const share = inside / (width - margin.left - margin.right);
    const nm = first + share * (last - first);
    return wavelength.reduce(
      (best, one, i) => (Math.abs(one - nm) < Math.abs(wavelength[best] - nm) ? i : best), 0);
  }

  chart.addEventListener("pointermove", (event) => point(nearest(event.clientX)));
  chart.addEventListener("pointerdown", (event) => point(nearest(event.clientX)));
  chart.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageDown: at - 10, PageUp: at + 10,
      Home: 0, End: wavelength.length - 1 };
    if (!(event.key in to)) return;
    event.preventDefault();
    point(to[event.key]);
  });
  addEventListener("resize", draw);
  chart.setAttribute("aria-valuemin", first);
  chart.setAttribute("aria-valuemax", last);
  makeCards();
  draw();
})();
