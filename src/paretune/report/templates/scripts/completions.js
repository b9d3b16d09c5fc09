// Completions side by side. All text goes through textContent, so none of it can become markup.
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
const fillPrompts = (index) => {
  const list = byId(`prompt-${index}`);
  if (!list) return;
  const chosen = parts[index].samples.preferences[Number(byId(`preference-${index}`).value)];
  const before = list.selectedIndex;
  list.replaceChildren(...chosen.prompts.map((each, position) => {
    const text = each.prompt.length > 44 ? each.prompt.slice(0, 43) + "…" : each.prompt;
    const option = make("option", "", `${each.prompt_id} · ${text} (${each.why})`);
    option.value = String(position);
    return option;
  }));
  list.selectedIndex = Math.min(Math.max(before, 0), chosen.prompts.length - 1);
  fillSamples(index);
};
const fillSamples = (index) => {
  const { samples } = parts[index];
  const chosen = samples.preferences[Number(byId(`preference-${index}`).value)];
  const prompt = chosen.prompts[byId(`prompt-${index}`).selectedIndex];
  const cards = byId(`cards-${index}`);
  byId(`shown-prompt-${index}`).textContent = prompt ? prompt.prompt : "No completions are stored for this preference.";
  cards.replaceChildren();
  if (!prompt) return;
  for (const sample of prompt.samples) {
    const method = parts[index].front.methods.find((each) => each.name === sample.source);
    const card = make("article", "card");
    if (method) card.style.setProperty("--hue", method.colour);
    const title = make("h4");
    if (method) title.append(marker(method));
    title.append(sample.source);
    const finish = sample.finish === "length" ? "; stopped at the length limit" : "";
    const how = sample.answer === "reference" ? "untrained, answers no preference" : `answer: ${sample.answer}`;
    card.append(title, make("p", "how", how + finish), make("blockquote", "", sample.text + (sample.cut ? " … (cut here)" : "")));
    if (!sample.text) card.querySelector("blockquote").append(make("span", "muted", "(empty)"));
    const chips = make("ul", "chips");
    samples.objectives.forEach((objective, column) => {
      const value = sample.rewards[column];
      const label = (objective.audit ? "audit · " : "") + objective.name;
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
    card.append(chips);
    cards.append(card);
  }
};
const step = (index, by) => {
  const list = byId(`prompt-${index}`);
  if (!list.length) return;
  list.selectedIndex = (list.selectedIndex + by + list.length) % list.length;
  fillSamples(index);
};
