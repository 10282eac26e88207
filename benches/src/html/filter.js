// Shows the rows in which each word typed begins a cell.
const field = document.getElementById("filter");
const rows = [...document.querySelectorAll("tbody tr")];
field.addEventListener("input", () => {
  const words = field.value.split(/\s+/).filter(Boolean);
  for (const row of rows) {
    const cells = [...row.cells].map((cell) => cell.textContent);
    row.hidden = !words.every((word) => cells.some((cell) => cell.startsWith(word)));
  }
});
