// A click on the head of a column sorts the rows of its table; a second one turns them round.
document.addEventListener("DOMContentLoaded", () => {
  const units = { ms: 1e-3, GiB: 1024 };  // beside s and MiB
  const number = (text) => {
    const plain = text.replace(/,(?=\d{3})/g, "").replace("−", "-");
    const found = plain.match(/^[<≤≥ ]*([-+]?\d+(?:\.\d+)?)(?: \/ [\d.]+)?(?: (ms|GiB)\b)?/);
    return found ? parseFloat(found[1]) * (units[found[2]] ?? 1) : null;
  };
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return x - y;
    if (x !== null || y !== null) return x !== null ? -1 : 1;
    return a.localeCompare(b);
  };
  for (const table of document.querySelectorAll("article table.docutils")) {
    const body = table.tBodies[0];
    if (!table.tHead || !body || body.rows.length < 3) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        const text = (row) => row.cells[column]?.textContent.trim() ?? "";
        const rows = [...body.rows].sort((a, b) => compare(text(a), text(b)));
        body.append(...(down ? rows.reverse() : rows));
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
      };
      head.tabIndex = 0;
      head.classList.add("sortable");
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  }
});
