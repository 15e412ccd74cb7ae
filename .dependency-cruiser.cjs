// The house: imports go down only, no cycles, backends never see ops (ARCHITECTURE.md, "Rooms").
const floors = [
  ['proof'],
  ['core'],
  ['ops'],
  ['compile'],
  ['bounds'],
  ['backend'],
  ['nn'],
  ['robust'],
  ['verify'],
  ['loss'],
  ['data'],
  ['format'],
  ['train'],
  ['cluster'],
  ['doors'],
  ['cli'],
]
const up = floors.flatMap((rooms, floor) => {
  const above = floors.slice(floor + 1).flat()
  if (above.length === 0) return []
  return [
    {
      name: `floor-${floor}-imports-up`,
      severity: 'error',
      from: { path: `^src/(${rooms.join('|')})/` },
      to: { path: `^src/(${above.join('|')})/` },
    },
  ]
})
module.exports = {
  forbidden: [
    ...up,
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } } },
    { name: 'backend-never-imports-ops', severity: 'error', from: { path: '^src/backend/' }, to: { path: '^src/ops/' } },
    {
      name: 'library-is-not-node-only',
      severity: 'error',
      comment: 'node: modules are imported statically only in cli/; elsewhere dynamically, so that a browser can load the library',
      from: { path: '^src/(?!cli/)' },
      to: { dependencyTypes: ['core'], dependencyTypesNot: ['type-only'], dynamic: false },
    },
    { name: 'the-checker-stands-alone', severity: 'error', comment: 'src/proof shares nothing with what it checks', from: { path: '^src/proof/' }, to: { pathNot: '^src/proof/' } },
    { name: 'src-does-not-import-tests', severity: 'error', from: { path: '^src/' }, to: { path: '^(test|bench)/' } },
  ],
  options: { parser: 'swc', tsPreCompilationDeps: true, doNotFollow: { path: 'node_modules' } },
}
