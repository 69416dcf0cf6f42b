// Package registration makes the GitHub App of a Forge, by GitHub's manifest flow:
//
//   - Permissions and Events are what the App is to be allowed and told of, and why:
//     the one list of it.
//   - Page is a page on loopback whose one button brings the manifest to GitHub, and
//     where GitHub sends the browser back, with a code. It is good for one browser and
//     one code: nobody else on this machine and no page on the web can use it, or have
//     Forge connected to an App of theirs.
//   - Convert gives the code to GitHub for the App's credentials, which GitHub hands out
//     once.
//   - Save keeps them: in files of mode 0600, which the settings file names once all
//     of them are whole.
package registration
