#compdef forge
# zsh completion of forge: forge completion zsh >"${fpath[1]}/_forge"
_forge() {
    local -a found
    local value help
    while IFS=$'\t' read -r value help; do
        found+=("${value//:/\\:}${help:+:$help}")
    done < <(command forge complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( $#found )); then
        _describe forge found
    else
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _forge "$@"
else
    compdef _forge forge
fi
