"use strict";
// The page keeps its whole state in the address, after the #: an address leads to the same example.
(() => {
  const CELL = ["dataset", "model", "attack", "epsilon"];
  const FILTERS = [...CELL, "class", "given", "outcome", "low", "high", "agreement", "order"];
  const form = document.getElementById("filters");
  const main = document.querySelector("main");
  const at = (id) => document.getElementById(id);
  let run = null;
  let state = {};
  let shown = null; // the example in the detail
  let list = null; // the page in the list
  let request = 0;

  const make = (tag, texts = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(texts)) {
      if (name === "text") made.textContent = value;
      else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value);
    }
    made.append(...children.filter((each) => each !== null));
    return made;
  };
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  const written = (values) => {
    const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined && value !== null);
    return new URLSearchParams(kept).toString();
  };
  const ask = async (path, values) => {
    const answer = await fetch(`${path}?${written(values)}`);
    const kind = answer.headers.get("content-type") || "";
    const found = kind.startsWith("application/json") ? await answer.json() : { error: await answer.text() };
    if (!answer.ok) throw new Error(found.error);
    return found;
  };
  const say = (error) => { at("error").textContent = error ? error.message : ""; at("error").hidden = !error; };

  // Filters ------------------------------------------------------------------------------------
  const choices = (name, options) => {
    const select = form.elements[name];
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  };
  const pick = (options, value, last = false) => options.includes(value) ? value : options[last ? options.length - 1 : 0];
  const fill = () => {
    const dataset = run.datasets.find((each) => each.name === state.dataset) || run.datasets[0];
    state.dataset = dataset.name;
    const models = dataset.models.map((each) => each.name);
    state.model = pick(models, state.model);
    const { attacks } = dataset.models.find((each) => each.name === state.model);
    state.attack = pick(attacks.map((each) => each.name), state.attack);
    const { epsilons } = attacks.find((each) => each.name === state.attack);
    state.epsilon = pick(epsilons, state.epsilon, true);
    choices("dataset", run.datasets.map((each) => [each.name, each.name]));
    choices("model", models.map((each) => [each, each]));
    choices("attack", attacks.map((each) => [each.name, each.name === run.unattacked ? "unattacked" : each.name]));
    choices("epsilon", epsilons.map((each) => [each, each]));
    const classes = [["", "all"], ...dataset.classes.map((each, place) => [String(place), each])];
    choices("class", classes);
    choices("given", classes);
    for (const name of FILTERS) form.elements[name].value = state[name] || "";
  };

  // List ---------------------------------------------------------------------------------------
  const answer = (given) => {
    if (!given) return make("span", { text: "–" });
    const sure = given.confidence ? ` ${given.confidence}` : "";
    return make("span", {}, make("span", { class: given.wrong ? "wrong" : "right", text: `${given.wrong ? "✗" : "✓"} ${given.label}` }), make("small", { text: sure }));
  };
  const picture = (example, kind) => make("img", {
    src: `image?${written({ ...cell(), example, kind })}`, alt: kind === "change" ? "change, scaled" : kind, loading: "lazy",
  });
  const cell = () => Object.fromEntries(CELL.map((name) => [name, state[name]]));
  const kinds = () => state.attack === run.unattacked ? ["clean"] : ["clean", "change", "adversarial"];
  const link = (example) => `#${written({ ...filters(), example })}`;
  const filters = () => Object.fromEntries(FILTERS.map((name) => [name, state[name]]));

  const card = (row) => {
    const picturesShown = row.stored && display() === "picture";
    return make("li", {}, make("a", { href: link(row.id), "data-id": row.id, "aria-current": String(row.id) === state.example ? "true" : false },
      make("b", { text: `#${row.id} ` }), make("span", { text: row.label }),
      picturesShown ? make("div", { class: "three" }, ...kinds().map((kind) => picture(row.id, kind))) : null,
      make("div", {}, answer(row.clean), state.attack === run.unattacked ? null : make("span", { text: " → " }), state.attack === run.unattacked ? null : answer(row.adversarial)),
      make("small", { text: [row.valid ? "" : "out of the threat model", row.models > 1 ? `${row.wrong} of ${row.models} models wrong` : ""].filter(Boolean).join("; ") })));
  };
  const display = () => (run.datasets.find((each) => each.name === state.dataset) || {}).display;
  const showList = () => {
    at("list").replaceChildren(...list.rows.map(card));
    const first = list.page * 24 + 1;
    at("count").textContent = list.total
      ? `${first.toLocaleString("en")}–${(first + list.rows.length - 1).toLocaleString("en")} of ${list.total.toLocaleString("en")} examples (${list.of.toLocaleString("en")} in the cell)`
      : `0 of ${list.of.toLocaleString("en")} examples: no example fits the filters`;
    at("before").disabled = list.page <= 0;
    at("after").disabled = list.page + 1 >= list.pages;
    at("missing").textContent = list.missing;
    at("missing").hidden = !list.missing;
  };

  // One example --------------------------------------------------------------------------------
  const signal = (values) => {
    const parts = [];
    values.channels.forEach((channel, place) => {
      const all = [...channel.clean, ...channel.adversarial].flat();
      parts.push(curve([[channel.clean, "clean"], [channel.adversarial, "adversarial"]], Math.min(...all), Math.max(...all), `channel ${place}: clean (blue) and adversarial (orange)`));
      const most = Math.max(...channel.change.flat().map(Math.abs), 1e-12);
      parts.push(curve([[channel.change, "change"]], -most, most, `channel ${place}: change, from −${most.toPrecision(3)} to ${most.toPrecision(3)}`));
    });
    return parts;
  };
  const curve = (lines, low, high, words) => {
    const figure = make("figure", { style: undefined });
    const drawing = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": words });
    const y = (value) => (97 - 94 * (value - low) / ((high - low) || 1)).toFixed(2);
    for (const [line, look] of lines) {
      const x = (place) => (1000 * place / Math.max(1, line.length - 1)).toFixed(1);
      const up = line.map(([, top], place) => `${x(place)} ${y(top)}`);
      const down = line.map(([bottom], place) => `${x(place)} ${y(bottom)}`).reverse();
      drawing.append(svg("path", { class: look, d: `M${[...up, ...down].join("L")}Z` }));
    }
    figure.append(drawing, make("figcaption", { text: words }));
    return figure;
  };
  const table = (heads, rows, { caption, look, numeric = false }) => make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    make("table", { class: look }, make("caption", { text: caption }),
      make("thead", {}, make("tr", {}, ...heads.map((each) => make("th", { scope: "col", text: each })))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((each, place) => {
        const made = make(place ? "td" : "th", { scope: place ? false : "row", "data-h": heads[place], class: numeric && place ? "number" : false });
        made.append(each);
        return made;
      }))))));

  const showDetail = () => {
    const detail = at("detail");
    main.classList.toggle("open", Boolean(shown));
    detail.hidden = !shown;
    if (!shown) { detail.replaceChildren(); return; }
    const move = (text, id) => {
      const button = make("button", { type: "button", text });
      button.disabled = id === undefined;
      button.addEventListener("click", () => go({ example: String(id) }));
      return button;
    };
    const copy = make("button", { type: "button", id: "copy", text: "Copy the link" });
    copy.addEventListener("click", copyLink);
    const close = make("button", { type: "button", text: "Close" });
    close.addEventListener("click", () => go({ example: "" }));
    const attacked = state.attack !== run.unattacked;
    const facts = [
      ["Cell", `${state.model}, ${attacked ? `${state.attack}, ε = ${state.epsilon}` : "unattacked"}, on ${state.dataset}`],
      ["True class", shown.label],
      ["Clean", answer(shown.clean)],
      attacked ? ["Adversarial", answer(shown.adversarial)] : null,
      attacked ? ["Distance", `${shown.distance}${shown.norm ? ` in ${shown.norm}` : ""}${shown.valid ? "" : ", out of the threat model: not counted"}`] : null,
      shown.target ? ["Target class", shown.target] : null,
    ].filter(Boolean);
    const parts = [
      make("div", { class: "tools" }, move("← Previous", shown.previous), move("Next →", shown.next), copy, close),
      make("h2", { id: "heading", tabindex: "-1", text: `Example #${shown.id}${shown.place ? `, ${shown.place.toLocaleString("en")} of ${shown.total.toLocaleString("en")}` : ", which the filters leave out"}` }),
    ];
    if (shown.picture) {
      const captions = { clean: "clean", change: `change, scaled: ±${shown.scale} is white or black, grey is none`, adversarial: "adversarial" };
      parts.push(make("div", { class: "three" }, ...kinds().map((kind) => make("figure", {}, picture(shown.id, kind), make("figcaption", { text: captions[kind] })))));
      if (shown.note) parts.push(make("p", { class: "soft", text: `Pictures: ${shown.note}.` }));
    } else if (shown.numbers && shown.numbers.display === "signal") {
      parts.push(...signal(shown.numbers));
    } else if (shown.numbers) {
      const rows = shown.numbers.rows.map((row) => [row.place, row.clean, row.change, row.adversarial]);
      const few = rows.length < shown.numbers.of;
      parts.push(table(["place", "clean", "change", "adversarial"], rows, { caption: few ? `The ${rows.length} most changed of ${shown.numbers.of.toLocaleString("en")} values` : "Values", numeric: true }));
    } else {
      parts.push(make("p", { class: "missing", text: shown.missing }));
    }
    parts.push(make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", {}, value)])));
    const heads = ["model", "clean", "this adversarial example", "its own adversarial example"];
    const rows = shown.answers.map((row) => [row.source ? `${row.model} (attacked)` : row.model, answer(row.clean), answer(row.this), answer(row.own)]);
    parts.push(table(attacked ? heads : heads.slice(0, 2), attacked ? rows : rows.map((row) => row.slice(0, 2)), { caption: "Answers of all models", look: "answers" }));
    detail.replaceChildren(...parts);
    document.title = `#${shown.id} · ${run.title} · Gibbon`;
  };
  const copyLink = async () => {
    const button = at("copy");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy it from the address bar";
    }
  };

  // State --------------------------------------------------------------------------------------
  const go = (changes) => {
    const next = { ...filters(), example: state.example, page: undefined, ...changes };
    location.hash = written(next);
  };
  const load = async () => {
    const mine = ++request;
    state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    fill();
    try {
      const [page, example] = await Promise.all([
        ask("api/examples", { ...filters(), page: state.page, example: state.example }),
        state.example ? ask("api/example", { ...filters(), example: state.example }) : null,
      ]);
      if (mine !== request) return; // a later one is on its way
      say(null);
      list = page;
      shown = example;
      showList();
      showDetail();
      if (shown && !document.activeElement.closest("form")) {
        at("heading").focus({ preventScroll: matchMedia("(min-width: 62rem)").matches });
      }
    } catch (error) {
      if (mine === request) say(error);
    }
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    const { name, value } = event.target;
    go({ [name]: value, ...(name === "dataset" ? { class: "", given: "", example: "" } : {}) });
  });
  at("reset").addEventListener("click", () => { location.hash = written({ ...cell() }); });
  at("before").addEventListener("click", () => go({ page: String(list.page - 1), example: "" }));
  at("after").addEventListener("click", () => go({ page: String(list.page + 1), example: "" }));
  at("skip").addEventListener("click", (event) => { event.preventDefault(); at("list").querySelector("a")?.focus(); });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !list) return;
    if (event.target.closest("select, input")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const first = list.rows[0]?.id;
    const keys = {
      ArrowRight: () => (shown ? shown.next !== undefined && go({ example: String(shown.next) }) : first !== undefined && go({ example: String(first) })),
      ArrowLeft: () => shown?.previous !== undefined && go({ example: String(shown.previous) }),
      PageDown: () => !at("after").disabled && at("after").click(),
      PageUp: () => !at("before").disabled && at("before").click(),
      f: () => form.elements.model.focus(),
      c: () => shown && copyLink(),
      Escape: () => {
        if (!shown) return;
        const id = shown.id;
        go({ example: "", page: String(list.page) });
        setTimeout(() => at("list").querySelector(`[data-id="${id}"]`)?.focus(), 300);
      },
    };
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  addEventListener("hashchange", load);

  (async () => {
    try {
      run = await ask("api/run", {});
      at("title").textContent = run.title;
      at("sentence").textContent = run.sentence;
      document.title = `${run.title} · Gibbon`;
      await load();
    } catch (error) {
      say(error);
    }
  })();
})();
