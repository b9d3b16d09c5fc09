// Figures were built in Python; here they are unpacked, given the colours of the page, and drawn when they come into view.
const packed = read(byId("figures"));
const unpack = (value) => {
  if (Array.isArray(value)) return value.map(unpack);
  if (value === null || typeof value !== "object") return value;
  if ("$" in value) return unpack(packed.lists[value.$]);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, unpack(each)]));
};
const hiddenMethods = new Set();
const config = { displaylogo: false, responsive: true, displayModeBar: false };
const themed = (figure) => {
  const lines = { gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line") };
  const { layout } = figure;
  Object.assign(layout, { autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
  Object.assign(layout.font, { family: getComputedStyle(document.body).fontFamily, color: colour("text") });
  Object.assign(layout.hoverlabel, { bgcolor: colour("surface"), bordercolor: colour("line") });
  for (const axis of ["xaxis", "yaxis"]) Object.assign(layout[axis], lines);
  for (const shape of layout.shapes ?? []) shape.line.color = colour("muted");
  for (const trace of figure.data) if (trace.meta && hiddenMethods.has(trace.meta.method)) trace.visible = false;
  return figure;
};
const turn = (box, figure) => { // a ticked box changes some traces, or the layout, by paths such as "error_x.visible"
  const change = JSON.parse(box.checked ? box.dataset.on : box.dataset.off);
  const targets = box.hasAttribute("data-layout") ? [figure.layout] : figure.data.filter((trace) => trace.meta && trace.meta.kind === box.dataset.kind);
  for (const target of targets) for (const [path, value] of Object.entries(change)) {
    const names = path.split("."), last = names.pop();
    names.reduce((inner, name) => (inner[name] ??= {}), target)[last] = value;
  }
};
const figureOf = (element) => {
  const figure = unpack(packed.figures[Number(element.dataset.figure)]);
  all(`input[data-chart="${element.dataset.figure}"]`).forEach((box) => turn(box, figure));
  return themed(element.complete ? element.complete(figure) : figure);
};
const draw = (element) => {
  if (!window.Plotly || element.closest("[hidden]") || element.closest("details:not([open])")) return;
  const { data, layout } = figureOf(element);
  window.Plotly.react(element, data, layout, config);
  element.dataset.drawn = "yes";
};
const redraw = () => all("[data-figure][data-drawn]").forEach(draw);
const seen = new IntersectionObserver((entries) => entries.filter((each) => each.isIntersecting && !each.target.dataset.drawn).forEach((each) => draw(each.target)), { rootMargin: "400px" });
const watch = () => all("[data-figure]").forEach((each) => { seen.unobserve(each); seen.observe(each); });
const loadPlotly = () => { // after the first paint: its four megabytes must not hold it up
  const script = make("script");
  script.textContent = byId("plotly").textContent;
  document.head.append(script);
  watch();
};
