// Connects controls to what they change, and draws the page for the first time.
const drawPart = (index) => { drawFront(index); drawCosts(index); drawKl(index); drawPossible(); drawProfiles(); };
const showPart = () => {
  all("[data-part]").forEach((each) => { each.hidden = Number(each.dataset.part) !== current(); });
  drawPart(current());
};
const on = (id, event, act) => { const element = byId(id); if (element) element.addEventListener(event, act); };
parts.forEach((part, index) => {
  for (const id of ["pair", "zoom", "bars"]) on(`${id}-${index}`, "change", () => drawFront(index));
  on(`baseline-${index}`, "change", () => fillHeat(index));
  on(`preference-${index}`, "change", () => fillPrompts(index));
  on(`prompt-${index}`, "change", () => fillSamples(index));
  on(`previous-${index}`, "click", () => step(index, -1));
  on(`next-${index}`, "click", () => step(index, 1));
  for (const id of ["metric", "detail"]) on(`${id}-${index}`, "change", () => filterMetrics(index));
  fillHeat(index);
  fillPrompts(index);
});
all("table.sortable").forEach(sortable);
all(".legend button[data-method]").forEach((button) => button.addEventListener("click", () => {
  const name = button.dataset.method;
  if (!hiddenMethods.delete(name)) hiddenMethods.add(name);
  all(".legend button[data-method]").forEach((each) => each.setAttribute("aria-pressed", String(!hiddenMethods.has(each.dataset.method))));
  drawPart(current());
}));
on("part", "change", showPart);
const nameTheme = () => { byId("theme").textContent = dark() ? "Light mode" : "Dark mode"; };
on("theme", "click", () => { root.dataset.theme = dark() ? "light" : "dark"; nameTheme(); drawPart(current()); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { nameTheme(); if (!printing) drawPart(current()); });
window.addEventListener("beforeprint", () => {
  printing = true;
  all("details").forEach((each) => { if (!each.open && !each.classList.contains("long")) { each.open = true; each.dataset.opened = "yes"; } });
  root.dataset.before = root.dataset.theme ?? ""; root.dataset.theme = "light"; drawPart(current());
});
window.addEventListener("afterprint", () => {
  printing = false;
  all("details[data-opened]").forEach((each) => { each.open = false; delete each.dataset.opened; });
  if (root.dataset.before) root.dataset.theme = root.dataset.before; else delete root.dataset.theme;
  drawPart(current());
});
nameTheme();
showPart();
root.dataset.ready = "yes";
