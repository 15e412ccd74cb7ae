// Where the project lives: what git knows of its checkout. No address stands in the files, since a copy, a fork and a mirror each have another.
import { spawnSync } from 'node:child_process'

/** Hosts whose pages are known to lie at https://HOST/OWNER/NAME, with the issues below it. */
const HOSTS = ['github.com', 'gitlab.com', 'codeberg.org', 'bitbucket.org']

/** Host and path of a remote in any form that git takes; undefined for a folder of this machine. User, password and port are left out. */
const placeOf = (remote) => {
  const short = /^(?:[\w.-]+@)?([\w.-]{2,}):(?!\/\/)\/?(.+)$/.exec(remote)
  if (short === null && !(/^(https?|ssh|git):/.test(remote) && URL.canParse(remote))) return undefined
  const [host, pathname] = short?.slice(1) ?? [new URL(remote).hostname, new URL(remote).pathname]
  return { host: host.toLowerCase(), path: pathname.replace(/^\/+|\/+$/g, '').replace(/\.git$/, '') }
}

/** The page of a remote, such as https://github.com/someone/mixtrain; undefined where none is known to belong to it. */
export const pageOf = (remote) => {
  const place = placeOf(remote)
  const isKnown = place !== undefined && HOSTS.includes(place.host) && /^[\w.-]+(\/[\w.-]+)+$/.test(place.path)
  return isKnown ? `https://${place.host}/${place.path}` : undefined
}

/** The page of the remote `origin` of a checkout; undefined without git, without such a remote, and for a folder within another project's checkout. */
export const addressOf = (folder) => {
  const git = (...args) => spawnSync('git', args, { cwd: folder, encoding: 'utf8' })
  const [prefix, origin] = [git('rev-parse', '--show-prefix'), git('remote', 'get-url', 'origin')]
  return prefix.status === 0 && prefix.stdout.trim() === '' && origin.status === 0
    ? pageOf(origin.stdout.trim())
    : undefined
}
