// Before anything is drawn, so that the page does not flash in the other theme.
try {
  const chosen = localStorage.getItem("penstock-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* a browser that keeps nothing follows the system */ }
