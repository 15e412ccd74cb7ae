// The reference of the API, from the docstrings behind the public doors: written as Markdown to docs/api, of which the site is built.
//
//   node api.js [--check]
//
// Fails for a public name without a docstring, a function whose docstring has no example, a link to nothing, or a type that a signature names and no door exports.
// With --check that is all. It has a TypeScript of its own: typedoc does not take version 7, by which the project is compiled.
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Application, ReflectionKind } from 'typedoc'

const root = fileURLToPath(new URL('..', import.meta.url))
const doors = ['losses', 'bounds', 'attacks', 'nn', 'data', 'onnx']
const onlyCheck = process.argv.includes('--check')

const app = await Application.bootstrapWithPlugins({
  name: 'API',
  outputs: [{ name: 'markdown', path: fileURLToPath(new URL('api', import.meta.url)) }],
  entryPoints: [...doors.map((door) => join(root, `src/doors/${door}.ts`)), join(root, 'src/index.ts')],
  tsconfig: join(root, 'tsconfig.json'),
  // The compiler of the project has checked it.
  skipErrorChecking: true,
  plugin: ['typedoc-plugin-markdown', 'typedoc-vitepress-theme'],
  disableGit: true,
  disableSources: true,
  readme: 'none',
  excludeInternal: true,
  validation: { notExported: true, invalidLink: true, notDocumented: false },
  // Instructions of the machine, and the list that a type of the recipe is made of.
  intentionallyNotExported: [
    'Micro',
    'Combine',
    'src/compile/instruction.ts:Instruction',
    'src/core/lowering.ts:Kernel',
  ],
  treatValidationWarningsAsErrors: true,
  docsRoot: fileURLToPath(new URL('.', import.meta.url)),
  sidebar: { pretty: false, autoConfiguration: true, format: 'vitepress', collapsed: true },
  entryFileName: 'index',
  hidePageHeader: true,
  hideBreadcrumbs: false,
  useCodeBlocks: true,
  expandObjects: false,
  parametersFormat: 'table',
  interfacePropertiesFormat: 'table',
  typeAliasPropertiesFormat: 'table',
  indexFormat: 'table',
})
const project = await app.convert()
if (project === undefined) process.exit(1)
for (const door of project.children)
  door.name = door.name === 'index' ? 'mixtrain' : door.name.replace('doors', 'mixtrain')
app.validate(project)

const namesIn = (container) =>
  container.children.flatMap((name) =>
    name.kind === ReflectionKind.Reference
      ? []
      : name.kind === ReflectionKind.Namespace
        ? [name, ...namesIn(name)]
        : [name],
  )
const commentsOf = (name) =>
  [name.comment, ...(name.signatures ?? []).map(({ comment }) => comment)].filter((c) => c !== undefined)
const names = project.children.flatMap((door) => namesIn(door))
const where = (name) => `${name.getFullName()} (${ReflectionKind.singularString(name.kind).toLowerCase()})`
for (const name of names) {
  const comments = commentsOf(name)
  if (!comments.some(({ summary }) => summary.length > 0)) app.logger.error(`${where(name)} has no docstring`)
  else if (name.kind === ReflectionKind.Function && !comments.some((c) => c.getTag('@example') !== undefined))
    app.logger.error(`the docstring of ${where(name)} has no example`)
}
if (app.logger.hasErrors() || app.logger.hasWarnings()) process.exit(1)
console.log(`${names.length} public names have docstrings, and each function an example`)

if (!onlyCheck) await app.generateOutputs(project)
