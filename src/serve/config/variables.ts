/** What stands for a value of the environment. `$${` is a plain `${`. */
const REFERENCE = /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{/g;

export interface Substituted {
  text: string;
  /** The scalar stood in quotes or as a block: it is a text whatever comes of it. */
  quoted: boolean;
  /** Where in the source, and why, nothing could be put in. */
  fault?: { offset: number; message: string };
}

/**
 * Puts values of the environment where `${NAME}` stands. Nothing else is looked at, so that what a
 * variable holds can never be more than a part of one value.
 * @param source of the scalar as it stands in the file
 */
export function substitute(value: string, source: string, env: NodeJS.ProcessEnv): Substituted {
  const quoted = /^["'|>]/.test(source);
  const inSource = [...source.matchAll(REFERENCE)];
  let count = 0;
  let fault: Substituted['fault'];
  const text = value.replace(REFERENCE, (all, name: string | undefined) => {
    const offset = inSource[count]?.index ?? 0;
    count += 1;
    if (all === '$${') return '${';
    const found = name === undefined ? undefined : env[name];
    if (found !== undefined) return found;
    fault ??= {
      offset,
      message:
        name === undefined
          ? 'the name of a variable and a brace must follow here; for a plain dollar sign write two'
          : `the environment has no variable ${name}`,
    };
    return '';
  });
  return { text, quoted, ...(fault ? { fault } : {}) };
}
