"use strict";
// Sorting and filtering: the page says all that it has to say without it.
(() => {
  const text = (cell) => cell.textContent.trim();
  const empty = (cell) => text(cell) === "" || text(cell) === "–";

  function compare(one, two, down) {
    if (empty(one) || empty(two)) return empty(one) - empty(two); // last, whichever way
    const [left, right] = [one.dataset.k, two.dataset.k];
    if (left === undefined && right !== undefined) return 1;
    if (left !== undefined && right === undefined) return -1;
    const order = left !== undefined
      ? left - right
      : text(one).localeCompare(text(two), "en", { numeric: true });
    return down ? -order : order;
  }

  function sortable(table) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.title = "Sort by this column";
      head.append(button);
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        const now = { ascending: "descending", descending: null }[was];
        const next = was === null ? "ascending" : now;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        const rows = [...original];
        if (next) {
          head.setAttribute("aria-sort", next);
          rows.sort((a, b) => compare(a.cells[place], b.cells[place], next === "descending"));
        }
        body.append(...rows);
      });
    });
  }

  function filterable(table) {
    const rows = [...table.tBodies[0].rows];
    const tools = document.createElement("div");
    tools.className = "tools";
    const labelled = (words, control) => {
      const label = document.createElement("label");
      label.append(words, control);
      tools.append(label);
      return control;
    };
    const search = labelled("Rows with", document.createElement("input"));
    search.type = "search";
    const choices = [...table.tHead.rows[0].cells].flatMap((head, place) => {
      const texts = [...new Set(rows.map((row) => text(row.cells[place])))];
      if (!head.classList.contains("left") || head.classList.contains("l2")) return [];
      if (texts.length < 2 || texts.length > 12 || texts.length === rows.length) return [];
      const select = labelled(text(head), document.createElement("select"));
      select.append(new Option("all", ""), ...texts.filter(Boolean).map((each) => new Option(each)));
      return [{ select, place }];
    });
    const shownRows = document.createElement("output");
    tools.append(shownRows);
    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const all = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => all.includes(word))
          || !choices.every(({ select, place }) => !select.value || text(row.cells[place]) === select.value);
        shown += !row.hidden;
      }
      shownRows.textContent = `${shown} of ${rows.length} rows`;
    };
    tools.addEventListener("input", show);
    show();
    table.closest(".scroll").before(tools);
  }

  for (const table of document.querySelectorAll("table.data")) {
    if (table.classList.contains("filtered")) filterable(table);
    sortable(table);
  }

  // A link to what is folded unfolds it.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let each = target?.closest("details"); each; each = each.parentElement.closest("details")) {
      each.open = true;
    }
    target?.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();

  // What is folded is printed too, but for galleries: these are many.
  const folded = [];
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details:not([open]):not(.gallery)")) {
      each.open = true;
      folded.push(each);
    }
  });
  addEventListener("afterprint", () => folded.splice(0).forEach((each) => { each.open = false; }));
})();
