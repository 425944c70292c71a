"use strict";
/* What the scripts of all pages share. It comes first in a page. */
globalThis.libraPage = (() => {
const $ = (id) => document.getElementById(id);
const root = document.documentElement;

/* Tables */

function setUpTables() {
  root.classList.add("scripts");
  document.querySelectorAll("table.sortable").forEach(sortable);
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, i) => {
    const cell = row.cells[i];
    if (cell.dataset.value === undefined) return cell.textContent;
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  heads.forEach((head, i) => {
    head.setAttribute("aria-sort", "none");
    head.firstElementChild.addEventListener("click", () => {
      const number = !head.classList.contains("text");
      const was = head.getAttribute("aria-sort");
      const up = was === "none" ? !number : was === "descending";  // numbers: largest first
      for (const h of heads) h.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, i), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);  // undefined ones last
        const order = number ? a - b : a.localeCompare(b, undefined, { numeric: true });
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

/* Color theme */

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

/* Follow the system and the button, and be light on paper. `redraw` is called after each change. */
function setUpTheme(redraw) {
  const show = () => {
    $("theme").textContent = isDark() ? "Light colors" : "Dark colors";
    redraw();
  };
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  prefersDark.addEventListener("change", show);
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    show();
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    show();
  });
  show();
}

return { $, setUpTables, setUpTheme };
})();
