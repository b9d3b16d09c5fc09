// Completions side by side. All text goes through textContent, so none of it can become markup.
const texts = islands("sample-data");
const marker = (method) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "use");
  shape.setAttribute("href", `#shape-${method.marker}`);
  svg.setAttribute("class", "marker");
  svg.setAttribute("aria-hidden", "true");
  svg.style.color = method.colour;
  svg.append(shape);
  return svg;
};
const card = (part, sample) => {
  const { objectives } = texts[part], method = choices[part].methods.find((each) => each.name === sample.source);
  const box = make("article", "card"), title = make("h4");
  if (method) { box.style.setProperty("--hue", method.colour); title.append(marker(method)); }
  title.append(sample.source);
  const finish = sample.finish === "length" ? "; stopped at the length limit" : "";
  const how = sample.answer === "reference" ? "untrained, answers no preference" : `answer: ${sample.answer}`;
  box.append(title, make("p", "how", how + finish), make("blockquote", "", sample.text + (sample.cut ? " … (cut here)" : "")));
  if (!sample.text) box.querySelector("blockquote").append(make("span", "muted", "(empty)"));
  const chips = make("ul", "chips");
  objectives.forEach((objective, column) => {
    const value = sample.rewards[column], label = (objective.audit ? "audit · " : "") + objective.name;
    const chip = make("li", "chip" + (objective.audit ? " audit" : "") + (value === null ? " missing" : ""));
    chip.append(value === null ? `${label}: missing (${sample.statuses[column].replaceAll("_", " ")})` : `${label} ${number(value)}`);
    if (value !== null) {
      const bar = make("i");
      bar.style.width = `${Math.max(0, Math.min(100, 100 * (value - objective.low) / (objective.high - objective.low)))}%`;
      chip.append(bar);
    }
    chips.append(chip);
  });
  chips.append(make("li", "chip total", sample.utility === null ? "utility: missing" : `utility ${number(sample.utility)}`));
  box.append(chips);
  return box;
};
const textsOf = (part, { method, column }) => { // of the nearest preference whose completions the page holds
  const known = texts[part], data = choices[part];
  const place = nearest(known.points, data.preferences[column]);
  const prompt = known.preferences[place].prompts[0];
  const cards = prompt ? prompt.samples.filter((each) => each.source === data.methods[method].name) : [];
  return { prompt, cards, base: prompt ? prompt.samples.filter((each) => each.answer === "reference") : [], head: known.heads[place] };
};
const sampled = (part) => { // beside the reader's choice: what the method, the base model and the choice held say
  const box = chooserOf(part).querySelector(".sampled"), now = texts[part] && textsOf(part, chosen[part]);
  const before = now && held[part] ? textsOf(part, held[part]) : null;
  box.querySelector(".of").textContent = now ? `${now.head}${before ? `; the choice to compare with ${lower(before.head)}` : ""}: of the preferences whose completions the page holds, the nearest.` : "";
  box.querySelector(".prompt").textContent = now && now.prompt ? now.prompt.prompt : "No completions are stored.";
  const shown = now ? [...now.base, ...now.cards, ...(before ? before.cards : [])] : [];
  box.querySelector(".cards").replaceChildren(...shown.map((each) => card(part, each)));
};
const fillPrompts = (part) => {
  const list = byId(`prompt-${part}`);
  const { prompts } = texts[part].preferences[Number(byId(`preference-${part}`).value)];
  const before = list.selectedIndex;
  list.replaceChildren(...prompts.map((each) => make("option", "", `${each.prompt_id} · ${each.prompt.length > 44 ? each.prompt.slice(0, 43) + "…" : each.prompt} (${each.why})`)));
  list.selectedIndex = Math.min(Math.max(before, 0), prompts.length - 1);
  fillSamples(part);
};
const fillSamples = (part) => {
  const { prompts } = texts[part].preferences[Number(byId(`preference-${part}`).value)];
  const prompt = prompts[byId(`prompt-${part}`).selectedIndex];
  byId(`shown-prompt-${part}`).textContent = prompt ? prompt.prompt : "No completions are stored for this preference.";
  byId(`cards-${part}`).replaceChildren(...(prompt ? prompt.samples.map((each) => card(part, each)) : []));
};
const step = (part, by) => {
  const list = byId(`prompt-${part}`);
  if (!list.length) return;
  list.selectedIndex = (list.selectedIndex + by + list.length) % list.length;
  fillSamples(part);
};
