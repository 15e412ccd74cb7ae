/** Elements of pictures, with their text escaped. */

export const INK = '#222222'
export const FAINT = '#6b6b6b'
export const GRID = '#e6e6e6'
export const FONT = 'Helvetica, Arial, sans-serif'

type Content = string | number

/** An element of the picture. Attributes and text are escaped here and nowhere else; a child that is an element already is written as it is. */
export const element = (
  tag: string,
  attributes: Readonly<Record<string, Content | undefined>>,
  ...children: readonly (Markup | string)[]
): Markup => {
  const said = Object.entries(attributes).flatMap(([k, v]) =>
    v === undefined ? [] : [` ${k}="${escaped(String(v))}"`],
  )
  const inner = children.map((c) => (typeof c === 'string' ? escaped(c) : c.markup)).join('')
  return { markup: inner === '' ? `<${tag}${said.join('')}/>` : `<${tag}${said.join('')}>${inner}</${tag}>` }
}

export interface Markup {
  readonly markup: string
}

const NAMED: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
/** Text in XML, without the characters that XML cannot hold. */
const escaped = (text: string): string =>
  text
    .replace(/[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu, '\uFFFD')
    .replace(/[&<>"]/g, (c) => NAMED[c])

/** A coordinate in hundredths, without a negative zero. */
export const places = (x: number): number => Math.round(100 * x) / 100 + 0

export const text = (
  x: number,
  y: number,
  size: number,
  fill: string,
  said: string,
  rest: Record<string, Content> = {},
) => element('text', { x: places(x), y: places(y), 'font-size': size, fill, ...rest }, said)

export const line = (x1: number, y1: number, x2: number, y2: number, stroke: string) =>
  element('path', { d: `M${places(x1)},${places(y1)}L${places(x2)},${places(y2)}`, stroke })

/** Usual widths of the fonts' characters in units of their size, so that the picture is the same on every machine. */
const WIDE = 0.6
export const widthOf = (said: string, size: number): number => WIDE * size * said.length
