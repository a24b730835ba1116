// A view is a tree of plain values; patch() makes the page look like it and
// touches nothing that is right already. So the focus, a selection and the
// scroll position survive a new frame every second.

const svgTags = new Set(["svg", "path", "rect", "line", "circle", "g", "title"]);

/** h makes a node. Falsy children are left out. */
export function h(tag, props, ...kids) {
  return { tag, props: props || {}, kids: kids.flat(9).filter((k) => k || k === 0).map((k) => (typeof k === "object" ? k : String(k))) };
}

/** patch makes the children of el be kids. */
export function patch(el, kids) {
  const keyed = new Map();
  for (const c of el.childNodes) if (c.$key !== undefined) keyed.set(c.$key, c);
  let at = el.firstChild;
  for (const kid of kids) {
    const key = kid.props?.key;
    let node = key !== undefined ? keyed.get(key) : at;
    if (node && !same(node, kid)) node = null;
    if (node && key === undefined && node.$key !== undefined) node = null;
    if (node) {
      if (node === at) at = at.nextSibling;
      else el.insertBefore(node, at);
      update(node, kid);
    } else {
      el.insertBefore(create(kid, el), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.$gone?.();
    at.remove();
    at = next;
  }
}

const same = (node, kid) => (typeof kid === "string" ? node.nodeType === 3 : node.$tag === kid.tag && node.$key === kid.props.key);

function create(kid, parent) {
  if (typeof kid === "string") return document.createTextNode(kid);
  const svg = svgTags.has(kid.tag) && (kid.tag === "svg" || parent.namespaceURI?.endsWith("svg"));
  const el = svg ? document.createElementNS("http://www.w3.org/2000/svg", kid.tag) : document.createElement(kid.tag);
  el.$tag = kid.tag;
  el.$key = kid.props.key;
  el.$on = {};
  set(el, {}, kid.props);
  if (kid.props.mount) {
    // Whoever mounts owns what is inside.
    queueMicrotask(() => { el.$gone = kid.props.mount(el, kid.props); });
  } else {
    patch(el, kid.kids);
  }
  el.$props = kid.props;
  return el;
}

function update(node, kid) {
  if (typeof kid === "string") {
    if (node.data !== kid) node.data = kid;
    return;
  }
  set(node, node.$props, kid.props);
  node.$props = kid.props;
  if (kid.props.mount) node.$draw?.(kid.props);
  else patch(node, kid.kids);
}

const own = new Set(["key", "mount", "css", "data"]);

function set(el, old, props) {
  for (const name in old) if (!(name in props) && !own.has(name) && !name.startsWith("on")) el.removeAttribute(name);
  for (const name in props) {
    const v = props[name];
    if (name.startsWith("on")) {
      const event = name.slice(2);
      if (!el.$on[event]) el.addEventListener(event, (e) => el.$on[event]?.(e));
      el.$on[event] = v;
    } else if (name === "css") {
      for (const k in v) if (el.style.getPropertyValue(k) !== String(v[k])) el.style.setProperty(k, v[k]);
    } else if (own.has(name) || old[name] === v) {
      continue;
    } else if (name === "value" || name === "checked") {
      if (el[name] !== v) el[name] = v;
    } else if (v === false || v === null || v === undefined) {
      el.removeAttribute(name);
    } else {
      el.setAttribute(name, v === true ? "" : v);
    }
  }
}
