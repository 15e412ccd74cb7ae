// The words of the WASM machine for assembly/, made from the one file that knows them (src/backend/wasm/words.ts): opcodes, and where each field of
// an instruction lies. Comments stay there.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const FILE = new URL('../assembly/words.ts', import.meta.url)

/** An enum of numbers as TypeScript compiles it: names and, backwards, numbers. */
const membersOf = (of) => Object.entries(of).filter(([, value]) => typeof value === 'number')

const enumOf = (name, members) =>
  `export enum ${name} {\n${members.map(([m, value]) => `  ${m} = ${value},\n`).join('')}}\n`

/** The text of assembly/words.ts. */
export const textOf = ({ Opcode, placesOf }, { Combine, LoopMode, Micro }) =>
  [
    '// Made by tools/words.js from src/backend/wasm/words.ts, which says what they mean. Do not edit.\n',
    ...Object.entries({ Opcode, LoopMode, Combine, Micro }).map(([name, of]) => enumOf(name, membersOf(of))),
    ...Object.entries(placesOf()).map(([name, places]) => enumOf(name, places)),
  ].join('\n')

/** Writes assembly/words.ts anew where the source says something else. */
export const writeWords = async () => {
  const { buildSync } = await import('esbuild')
  const source = (path) => JSON.stringify(fileURLToPath(new URL(`../src/${path}`, import.meta.url)))
  const contents = `export * as words from ${source('backend/wasm/words.ts')}\nexport * as lowering from ${source('core/lowering.ts')}\n`
  const stdin = { contents, resolveDir: fileURLToPath(new URL('.', import.meta.url)), loader: 'ts' }
  const [{ text: module }] = buildSync({ stdin, bundle: true, format: 'esm', write: false }).outputFiles
  const { words, lowering } = await import(`data:text/javascript,${encodeURIComponent(module)}`)
  const text = textOf(words, lowering)
  if (!existsSync(FILE) || readFileSync(FILE, 'utf8') !== text) writeFileSync(FILE, text)
}
