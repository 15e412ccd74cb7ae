import * as TE from 'fp-ts/lib/TaskEither.js'
import { usage } from '../core/error.ts'
import { unknownName } from '../core/names.ts'
import type { Command, Defined } from './command.ts'
import { common } from './options.ts'

/** A command as a shell completes it. */
interface Completed {
  readonly name: string
  readonly summary: string
  readonly options: readonly { readonly long: string; readonly about: string; readonly takesValue: boolean }[]
}

const completed = ({ command }: Defined): Completed => ({
  name: command.name,
  summary: command.summary,
  options: Object.values({ ...command.options, ...common }).map((option) => ({
    long: option.flags.split(' ')[0],
    about: option.about,
    takesValue: 'read' in option,
  })),
})

const longs = ({ options }: Completed): string => [...options.map(({ long }) => long), '--help'].join(' ')

const bash = (all: readonly Completed[]): string => `# bash completion of mixtrain: source <(mixtrain completion bash)
_mixtrain() {
  local current=\${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${[...all.map(({ name }) => name), 'help'].join(' ')}" -- "$current"))
    return
  fi
  if [[ "$current" == -* ]]; then
    case "\${COMP_WORDS[1]}" in
${all.map((c) => `      ${c.name}) COMPREPLY=($(compgen -W "${longs(c)}" -- "$current")) ;;`).join('\n')}
    esac
  elif [ "\${COMP_WORDS[1]}" = help ]; then
    COMPREPLY=($(compgen -W "${all.map(({ name }) => name).join(' ')}" -- "$current"))
  fi
}
complete -o default -F _mixtrain mixtrain`

/** Text within single quotes of zsh and fish. */
const quoted = (text: string): string => text.replaceAll("'", "'\\''")

const zsh = (all: readonly Completed[]): string => {
  const about = (text: string) => quoted(text.replace(/[\\[\]:]/g, (c) => `\\${c}`))
  const specs = ({ options }: Completed) =>
    options.map((o) => `'${o.long}[${about(o.about)}]${o.takesValue ? ':value:_files' : ''}'`).join(' ')
  return `#compdef mixtrain
# zsh completion of mixtrain: source <(mixtrain completion zsh)
_mixtrain() {
  local -a commands
  commands=(${all.map(({ name, summary }) => `'${name}:${about(summary)}'`).join(' ')})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  case $words[2] in
${all.map((c) => `    ${c.name}) shift words; (( CURRENT-- )); _arguments ${specs(c)} '*:file:_files' ;;`).join('\n')}
    help) _describe command commands ;;
  esac
}
compdef _mixtrain mixtrain`
}

const fish = (all: readonly Completed[]): string =>
  [
    '# fish completion of mixtrain: mixtrain completion fish | source',
    ...all.map(
      ({ name, summary }) => `complete -c mixtrain -n __fish_use_subcommand -f -a ${name} -d '${quoted(summary)}'`,
    ),
    ...all.flatMap(({ name, options }) =>
      options.map(
        ({ long, about, takesValue }) =>
          `complete -c mixtrain -n '__fish_seen_subcommand_from ${name}' -l ${long.slice(2)}${takesValue ? ' -r' : ''} -d '${quoted(about)}'`,
      ),
    ),
  ].join('\n')

const shells = { bash, zsh, fish } as const

/** `mixtrain completion`: what a shell needs to complete commands and options. `all` is asked for when it runs: this command is one of them. */
export const completionOf = (all: () => readonly Defined[]): Command<Record<never, never>, 'SHELL'> => ({
  name: 'completion',
  summary: 'print a completion script for a shell',
  description:
    'Prints a script that makes a shell complete commands, options and files. It is made from the records of the commands, so that a new version may have another one.',
  takes: { SHELL: Object.keys(shells).join(', ') },
  options: {},
  examples: [
    'source <(mixtrain completion bash)',
    'mixtrain completion fish > ~/.config/fish/completions/mixtrain.fish',
  ],
  run: ({ SHELL }, _, shell) => {
    if (!Object.hasOwn(shells, SHELL)) return TE.left(usage(unknownName('shell', SHELL, Object.keys(shells))))
    shell.print(shells[SHELL as keyof typeof shells](all().map(completed)))
    return TE.right(undefined)
  },
})
