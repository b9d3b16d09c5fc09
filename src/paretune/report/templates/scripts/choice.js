// The reader's preference: which answer is shown, what it gains and loses, where the choice lies, how it is kept.
const choices = islands("choice-data");
const held = {}; // by task and budget: what is compared with, { name, scores [seed][objective] }
const distance = (a, b) => a.reduce((sum, each, k) => sum + Math.abs(each - b[k]), 0);
const nearest = (points, wanted) => points.reduce((best, point, n) => (distance(point, wanted) < distance(points[best], wanted) - 1e-9 ? n : best), 0);
const mean = (values) => { const known = values.filter((each) => each !== null); return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null; };
const columnMeans = (rows) => rows[0].map((_, k) => mean(rows.map((row) => row[k])));
const gap = (values, quantiles) => { // mean with its Student-t interval
  const known = values.filter((each) => each !== null), n = known.length, middle = mean(known);
  if (n < 2) return [middle, null, null];
  const sd = Math.sqrt(known.reduce((sum, each) => sum + (each - middle) ** 2, 0) / (n - 1));
  const reach = quantiles[n] * sd / Math.sqrt(n);
  return [middle, middle - reach, middle + reach];
};
const interpolated = (data, method, wanted) => { // inverse distances to the nearest measured preferences
  const order = data.preferences.map((point, n) => [distance(point, wanted), n]).sort((a, b) => a[0] - b[0]).slice(0, wanted.length + 1);
  const shares = order.map(([far]) => 1 / Math.max(far, 1e-9)), total = shares.reduce((a, b) => a + b, 0);
  const means = order.map(([, n]) => columnMeans(data.scores[method][n]));
  return means[0].map((_, k) => means.reduce((sum, row, n) => sum + shares[n] / total * row[k], 0));
};
const asked = (data, least) => least.map((wanted, k) => k).filter((k) => k < data.objectives.length || least[k] > data.ranges[k][0]); // an audit counts once its slider was moved
const share = (data, value, k) => value / (data.ranges[k][1] - data.ranges[k][0]);
const reach = (data, scores, least) => Math.min(...asked(data, least).map((k) => share(data, scores[k] - least[k], k)));
const byAspirations = (data, least, named) => { // achievement: the policy whose worst shortfall is smallest, of one method where it is named
  let best = null;
  data.methods.forEach((method, m) => data.preferences.forEach((_, n) => {
    if (method.ceiling || (named && method.name !== named)) return;
    const scores = columnMeans(data.scores[m][n]);
    if (asked(data, least).some((k) => scores[k] === null)) return;
    const worth = reach(data, scores, least) + 1e-3 * asked(data, least).reduce((sum, k) => sum + share(data, scores[k], k), 0);
    if (!best || worth > best.worth) best = { method: m, preference: n, worth, short: reach(data, scores, least) };
  }));
  return best;
};
const chooserOf = (part) => byId(`chooser-${part}`);
const weightsOf = (part) => {
  const values = all("[data-weight]", chooserOf(part)).map((each) => Number(each.value));
  const sum = values.reduce((a, b) => a + b, 0);
  return values.map((each) => (sum ? each / sum : 1 / values.length));
};
const setWeights = (part, weights) => all("[data-weight]", chooserOf(part)).forEach((each, k) => { each.value = Math.round(100 * weights[k]); });
const rescale = (part, moved) => { // the others keep their proportions and fill up to 100
  const sliders = all("[data-weight]", chooserOf(part)), rest = 100 - Number(moved.value);
  const others = sliders.filter((each) => each !== moved), sum = others.reduce((a, each) => a + Number(each.value), 0);
  others.forEach((each) => { each.value = Math.round(sum ? rest * Number(each.value) / sum : rest / others.length); });
};
const modeOf = (part) => chooserOf(part).querySelector(`[name="mode-${part}"]:checked`).value;
const leastOf = (part) => all("[data-least]", chooserOf(part)).map((each) => Number(each.value));
const cellsOf = (row, gaps) => gaps.forEach(([value, low, high]) => {
  const clear = low !== null && (low > 0 || high < 0);
  const cell = make("td", `number ${clear ? (value > 0 ? "gain" : "loss") : "unclear"}`, number(value, true));
  cell.append(make("small", "", low === null ? "no interval" : `[${number(low, true)}, ${number(high, true)}]`));
  row.append(cell);
});
const listing = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);
const gapsOf = (data, mine, theirs) => data.names.map((_, k) => gap(mine.map((seed, s) => (theirs[s] && seed[k] !== null && theirs[s][k] !== null ? seed[k] - theirs[s][k] : null)), data.quantiles));
const gainRow = (data, name, mine, theirs) => {
  const row = make("tr");
  row.append(make("th", "", name));
  cellsOf(row, gapsOf(data, mine, theirs));
  return row;
};
const gainLine = (data, name, mine) => { // in plain units; nothing where one seed has no interval
  const known = gapsOf(data, mine, data.base).map(([value, low, high], k) => ({ value, name: data.names[k], clear: low > 0 || high < 0, low })).filter((each) => each.low !== null);
  const of = (kind) => known.filter(kind).map((each) => `${number(Math.abs(each.value))} ${each.name}`);
  const gained = of((each) => each.clear && each.value > 0), lost = of((each) => each.clear && each.value < 0), same = known.filter((each) => !each.clear).map((each) => each.name);
  const parts = [gained.length ? `gains ${listing(gained)}` : "", lost.length ? `loses ${listing(lost)}` : ""].filter(Boolean);
  if (!known.length) return "";
  return `Against the base model ${name} ${parts.length ? parts.join(" and ") : "shows no change beyond chance"}${parts.length && same.length ? `; ${listing(same)} may be unchanged` : ""}.`;
};
const chosen = {}; // by task and budget: what is shown now
const choose = (part) => {
  const data = choices[part], box = chooserOf(part);
  if (!box) return;
  const aspiring = modeOf(part) === "aspirations", wanted = weightsOf(part), named = box.querySelector(".chosen-method").value;
  const found = aspiring ? byAspirations(data, leastOf(part), named) : null;
  const column = found ? found.preference : nearest(data.preferences, wanted);
  const leader = data.rankings[column].length ? data.rankings[column][0][0] : 0;
  const method = found ? found.method : named ? data.methods.findIndex((each) => each.name === named) : leader;
  const measured = found || distance(data.preferences[column], wanted) < 0.011 * wanted.length;
  chosen[part] = { method, column, wanted: found ? data.preferences[column] : wanted, mode: modeOf(part) };
  all("output", box).forEach((each) => { const slider = each.previousElementSibling; each.textContent = "weight" in slider.dataset ? `${slider.value} %` : number(Number(slider.value)); });
  box.querySelector(".mode-weights").hidden = aspiring;
  box.querySelector(".mode-aspirations").hidden = !aspiring;
  box.querySelector(".head").textContent = data.heads[column] + (found ? `, answered by ${data.methods[method].name}` : "");
  const mine = data.scores[method][column], { name, cost } = data.methods[method];
  box.querySelector(".answer-lines").replaceChildren(...[found ? "" : data.answers[column], cost, gainLine(data, name, mine)].filter(Boolean).map((line) => make("p", "", line)));
  const note = box.querySelector(".interpolated");
  note.hidden = Boolean(measured) && !(found && found.short < 0);
  if (found && found.short < 0) note.textContent = `No measured policy reaches all of this. The closest lacks ${number(-100 * found.short)} % of an objective's range.`;
  else if (!measured) note.textContent = `Your preference was not measured; shown is the nearest that was. Interpolated for yours (an estimate): ${interpolated(data, method, wanted).map((value, k) => `${data.names[k]} ${number(value)}`).join(", ")}.`;
  box.querySelector(".for-preference tbody").replaceChildren(...data.rankings[column].map(([place, value, standing, ...scores]) => {
    const row = make("tr", place === method ? "chosen" : ""), head = make("th");
    head.append(marker(data.methods[place]), data.methods[place].name);
    const [figure, bounds] = value.split(" [", 2), shown = make("td", "number", figure);
    if (bounds) shown.append(make("small", "", `[${bounds}`));
    row.append(head, shown, make("td", `standing ${standing}`, standing), ...scores.map((each) => make("td", "number", each)));
    return row;
  }));
  const rows = [gainRow(data, "against the base model", mine, data.base)];
  if (held[part]) rows.push(gainRow(data, `against ${held[part].name}`, mine, held[part].scores));
  data.more[column].forEach((more, k) => { if (more !== null) rows.push(gainRow(data, `if asked for more ${data.objectives[k]} (${data.labels[more]})`, data.scores[method][more], mine)); });
  box.querySelector(".gains tbody").replaceChildren(...rows);
  const canvas = box.querySelector("[data-figure]");
  canvas.complete = (figure) => placed(figure, data, chosen[part], Boolean(measured));
  if (canvas.dataset.drawn) draw(canvas);
  sampled(part);
};
const placed = (figure, data, { method, wanted }, measured) => { // fill in the measured points of the method, and the choice
  const [points, choice] = figure.data, second = Math.min(1, data.objectives.length - 1);
  const means = data.scores[method].map(columnMeans), at = measured ? means[nearest(data.preferences, wanted)] : interpolated(data, method, wanted);
  points.x = means.map((each) => each[0]); points.y = means.map((each) => each[second]);
  points.text = means.map((each, n) => `${plain(data.methods[method].name)}, ${plain(data.heads[n])}<br>${each.map((value, k) => `${plain(data.names[k])}: ${number(value)}`).join("<br>")}`);
  points.marker.color = choice.marker.color = data.methods[method].colour;
  choice.x = [at[0]]; choice.y = [at[second]]; choice.marker.symbol = measured ? "circle" : "circle-open";
  choice.text = [measured ? "your choice, measured" : "your choice, interpolated"];
  return figure;
};
const record = (part) => { // what `paretune generate --preference @choice.json` reads
  const data = choices[part], { method, wanted, mode } = chosen[part];
  const { name, cell } = data.methods[method], least = leastOf(part);
  const kept = { schema_version: 1, kind: "paretune choice", objectives: Object.fromEntries(data.objectives.map((each, k) => [each, Number(wanted[k].toFixed(4))])), mode, study: data.study, task: data.task, method: name, cell };
  const every = [...data.objectives, ...data.audit];
  return mode === "aspirations" ? { ...kept, aspirations: Object.fromEntries(asked(data, least).map((k) => [every[k], least[k]])) } : kept;
};
const linkOf = (part) => `choice=${encodeURIComponent(JSON.stringify({ part, weights: all("[data-weight]", chooserOf(part)).map((each) => Number(each.value)), least: leastOf(part), mode: modeOf(part), method: chooserOf(part).querySelector(".chosen-method").value }))}`;
const lower = (text) => text.charAt(0).toLowerCase() + text.slice(1);
const restore = () => { // a link holds the sliders as they stood
  const match = /#choice=(.+)$/.exec(location.hash);
  if (!match) return false;
  try {
    const kept = JSON.parse(decodeURIComponent(match[1])), box = chooserOf(kept.part);
    if (!box) return false;
    if (byId("part")) byId("part").value = kept.part;
    all("[data-weight]", box).forEach((each, k) => { each.value = kept.weights[k]; });
    all("[data-least]", box).forEach((each, k) => { each.value = kept.least[k]; });
    box.querySelector(".chosen-method").value = kept.method;
    all(`[name="mode-${kept.part}"]`, box).forEach((each) => { each.checked = each.value === kept.mode; });
    return true;
  } catch { return false; } // a link that was cut short changes nothing
};
const connect = (part) => {
  const box = chooserOf(part), data = choices[part], say = (text) => { box.querySelector(".said").textContent = text; };
  box.querySelector(".sliders").addEventListener("input", (event) => { if ("weight" in event.target.dataset) rescale(part, event.target); choose(part); });
  all("[data-preset]", box).forEach((each) => each.addEventListener("click", () => {
    const k = each.dataset.preset, count = data.objectives.length;
    setWeights(part, data.objectives.map((_, n) => (k === "equal" ? 1 / count : Number(Number(k) === n))));
    choose(part);
  }));
  box.querySelector(".hold").addEventListener("click", () => {
    const { method, column } = chosen[part];
    held[part] = { name: `${data.methods[method].name}, ${lower(data.heads[column])}`, method, column, scores: data.scores[method][column] };
    choose(part);
    say("From now on, choices are compared with this one.");
  });
  box.querySelector(".link").addEventListener("click", () => {
    location.hash = linkOf(part);
    if (navigator.clipboard) navigator.clipboard.writeText(location.href).then(() => say("Link copied."), () => say("The link stands in the address bar."));
    else say("The link stands in the address bar.");
  });
  box.querySelector(".save").addEventListener("click", () => {
    save("choice.json", JSON.stringify(record(part), null, 2), "application/json");
    say(`Saved. In the study's folder: paretune generate runs/${data.methods[chosen[part].method].cell} --preference @choice.json "prompt"`);
  });
  choose(part);
};
