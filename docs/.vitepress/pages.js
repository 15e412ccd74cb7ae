// Which files of the repository are pages of the site, at which address, and where a link of one of them leads there. Pages stay plain Markdown whose links
// name files, so that they work in a checkout too.
import { existsSync, readdirSync } from 'node:fs'
import { join, posix, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))

const markdownIn = (folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.md'))
    .map((name) => posix.join(folder, name))

/** Pages written by hand, as paths below the root. */
export const sources = ['.', 'docs', 'examples', 'proofs', 'tools/vnncomp', 'bench/results'].flatMap(markdownIn)

/** `docs/losses.md` is `losses.md` of the site, the README its first page, an index of a folder the first of that folder. */
const addressOf = (path) => {
  if (path === 'README.md') return 'index.md'
  if (path === 'docs/README.md') return 'manual.md'
  return path.replace(/^docs\//, '').replace(/README\.md$/, 'index.md')
}

/** For VitePress: from files to addresses; what typedoc wrote keeps its tree. */
export const rewrites = (path) => addressOf(path)

const EXAMPLE = /^examples\/(.*)\.ts$/

/** Where a link that a file of the repository has leads on the site; none for what is not on it. */
export const linkOf = (from, href) => {
  if (/^([a-z]+:|#|\/)/i.test(href)) return href
  const [path, anchor] = href.split('#')
  const target = posix.normalize(posix.join(posix.dirname(from), decodeURI(path)))
  const suffix = anchor === undefined ? '' : `#${anchor}`
  if (target.endsWith('.md')) return `/${addressOf(target)}${suffix}`
  const [, example] = EXAMPLE.exec(target) ?? []
  if (example !== undefined) return `/examples/${example}.md`
  return existsSync(join(root, target)) ? undefined : href
}

/** A rule for markdown-it: links are those of the site, and what is not on it (a license, a folder) is plain text. */
export const siteLinks = (md) => {
  const rule = (tokens, index, env) => {
    const from = relative(root, env.realPath ?? env.path)
      .split(sep)
      .join('/')
    const to = linkOf(from, tokens[index].attrGet('href'))
    if (to !== undefined) return tokens[index].attrSet('href', to)
    const close = tokens.findIndex((token, i) => i > index && token.type === 'link_close')
    for (const i of [index, close]) Object.assign(tokens[i], { type: 'text', content: '', tag: '', nesting: 0 })
  }
  md.core.ruler.push('site_links', ({ tokens, env }) => {
    for (const { children } of tokens)
      for (const [i, { type }] of (children ?? []).entries()) if (type === 'link_open') rule(children, i, env)
  })
}

/** `examples/[name].md` is made of each program: its first comment, its code, and what it prints stands at its end. */
export const exampleNames = readdirSync(join(root, 'examples'))
  .map((name) => EXAMPLE.exec(`examples/${name}`)?.[1])
  .filter((name) => name !== undefined)

/** A block of what a program prints (`output`) is plain text. */
export const plainOutput = (md) =>
  md.core.ruler.push('plain_output', ({ tokens }) => {
    for (const token of tokens) if (token.type === 'fence' && token.info === 'output') token.info = 'txt'
  })
