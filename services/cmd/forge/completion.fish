# fish completion of forge: forge completion fish >~/.config/fish/completions/forge.fish
function __forge_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (command forge complete -- $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c forge -f -a '(__forge_complete)'
