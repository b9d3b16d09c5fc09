// Connects controls to what they change, and shows the page for the first time.
const showPart = () => {
  all("[data-part]").forEach((each) => { each.hidden = each.dataset.part !== current(); });
  watch();
};
const on = (id, event, act) => { const element = byId(id); if (element) element.addEventListener(event, act); };
restore();
Object.keys(choices).forEach(connect);
Object.keys(texts).forEach((part) => {
  on(`preference-${part}`, "change", () => fillPrompts(part));
  on(`prompt-${part}`, "change", () => fillSamples(part));
  on(`previous-${part}`, "click", () => step(part, -1));
  on(`next-${part}`, "click", () => step(part, 1));
  fillPrompts(part);
});
all("table.sortable").forEach(sortable);
all("input[data-chart]").forEach((box) => box.addEventListener("change", () => draw(document.querySelector(`[data-figure="${box.dataset.chart}"]`))));
all("details").forEach((each) => each.addEventListener("toggle", watch));
all(".legend button[data-method]").forEach((button) => button.addEventListener("click", () => {
  const name = button.dataset.method;
  if (!hiddenMethods.delete(name)) hiddenMethods.add(name);
  all(".legend button[data-method]").forEach((each) => each.setAttribute("aria-pressed", String(!hiddenMethods.has(each.dataset.method))));
  redraw();
}));
on("part", "change", showPart);
const nameTheme = () => { byId("theme").textContent = dark() ? "Light mode" : "Dark mode"; };
on("theme", "click", () => { root.dataset.theme = dark() ? "light" : "dark"; nameTheme(); redraw(); });
window.addEventListener("hashchange", () => { if (restore()) { showPart(); Object.keys(choices).forEach(choose); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { nameTheme(); redraw(); });
window.addEventListener("beforeprint", () => {
  all("details").forEach((each) => { if (!each.open && !each.classList.contains("long")) { each.open = true; each.dataset.opened = "yes"; } });
  root.dataset.before = root.dataset.theme ?? ""; root.dataset.theme = "light"; all("[data-figure]").forEach(draw);
});
window.addEventListener("afterprint", () => {
  all("details[data-opened]").forEach((each) => { each.open = false; delete each.dataset.opened; });
  if (root.dataset.before) root.dataset.theme = root.dataset.before; else delete root.dataset.theme;
  redraw();
});
nameTheme();
showPart();
requestAnimationFrame(() => setTimeout(() => { loadPlotly(); root.dataset.ready = "yes"; }));
