// Before the first paint, so that nobody is dazzled: the theme that was chosen
// last. Without a choice the style sheet follows the system.
try {
  const theme = localStorage.getItem("pushguard.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch { /* storage is off: the system decides */ }
