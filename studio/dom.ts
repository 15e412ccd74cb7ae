/** The element with this id; a missing one is a mistake in index.html. */
export const byId = <E extends Element = HTMLElement>(id: string): E => {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`index.html has no #${id}`)
  return found as unknown as E
}

type Attributes = Readonly<Record<string, string | number>>

const filled = <E extends Element>(e: E, attributes: Attributes, children: readonly (Node | string)[]): E => {
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, String(value))
  e.append(...children)
  return e
}

export const el = <K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[K] => filled(document.createElement(tag), attributes, children)

export const svg = <K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly (Node | string)[]
): SVGElementTagNameMap[K] => filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children)

/** Sets text only where it changes, so that live regions do not repeat themselves. */
export const say = (e: Element, text: string): void => {
  if (e.textContent !== text) e.textContent = text
}

export const percent = (share: number | null): string => (share === null ? '–' : `${(100 * share).toFixed(1)} %`)

/** A number with a real minus sign. What would round to 0 gets one digit that is none: a margin just below 0 is not 0. */
export const signed = (x: number, digits: number): string => {
  const size = Math.abs(x)
  const text = size.toFixed(digits)
  return `${x < 0 ? '−' : x > 0 ? '+' : ''}${x !== 0 && Number(text) === 0 ? size.toPrecision(1) : text}`
}
export const plain = (x: number, digits: number): string => signed(x, digits).replace('+', '')

/** A digit with its article. */
export const aDigit = (j: number): string => (j === 8 ? 'an 8' : `a ${j}`)
