# bash completion of forge: source <(forge completion bash)
_forge() {
    local line=${COMP_LINE:0:COMP_POINT} cur=${COMP_WORDS[COMP_CWORD]} words value
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    [[ $cur == [=:] ]] && cur=""
    # bash takes = and : for ends of words: what lies before is not completed again.
    local whole=${words[${#words[@]} - 1]}
    local before=${whole%"$cur"}
    COMPREPLY=()
    while IFS=$'\t' read -r value _; do
        [[ -n $value ]] && COMPREPLY+=("${value#"$before"}")
    done < <(command "${COMP_WORDS[0]}" complete -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _forge forge
