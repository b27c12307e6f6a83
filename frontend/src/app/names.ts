/** So many of the names have to begin alike. */
const NEARLY_ALL = 0.8;

const known = new WeakMap<readonly string[], string>();

/** The modules around nearly all of the ops, as their names begin: `model/` of `model/a/Conv` and `model/b/Conv`. */
export function sharedScope(names: readonly string[]): string {
  let scope = known.get(names);
  if (scope === undefined) known.set(names, (scope = scopeOf(names)));
  return scope;
}

function scopeOf(names: readonly string[]): string {
  let scope = '';
  let inside: readonly string[] = names;
  for (;;) {
    const counts = new Map<string, string[]>();
    for (const name of inside) {
      const end = name.indexOf('/', scope.length);
      if (end < 0) continue;
      const longer = name.slice(0, end + 1);
      const found = counts.get(longer);
      if (found) found.push(name);
      else counts.set(longer, [name]);
    }
    const [longer, most] = [...counts].reduce((a, b) => (b[1].length > a[1].length ? b : a), ['', [] as string[]]);
    if (most.length < 2 || most.length < NEARLY_ALL * names.length) break;
    [scope, inside] = [longer, most];
  }
  // A slash that every name begins with is no module.
  return scope === '/' ? '' : scope;
}

/** A name without the scope that all share. */
export const withoutScope = (name: string, scope: string): string =>
  scope && name.startsWith(scope) ? `…/${name.slice(scope.length)}` : name;
