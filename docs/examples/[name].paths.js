// A page for each program of examples/: what its first comment says, its code, and what it prints, which its last comment has.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { exampleNames, root } from '../.vitepress/pages.js'

const pageOf = (name) => {
  const file = readFileSync(join(root, 'examples', `${name}.ts`), 'utf8')
  const [, about, code, output] = /^((?:\/\/.*\n)+)([\s\S]*?)\/\* Prints:\n([\s\S]*?)\*\/\n$/.exec(file)
  const title = name.replace(/^(\d+)-/, '$1. ').replaceAll('-', ' ')
  return [
    `# ${title.replace(/[a-z]/, (first) => first.toUpperCase())}`,
    about.replaceAll(/^\/\/ ?/gm, '').trim(),
    `\`\`\`ts\n${code.trim()}\n\`\`\``,
    'It prints',
    `\`\`\`\n${output.trim()}\n\`\`\``,
    `The program is \`examples/${name}.ts\`; a test runs it.`,
  ].join('\n\n')
}

export default { paths: () => exampleNames.map((name) => ({ params: { name }, content: pageOf(name) })) }
