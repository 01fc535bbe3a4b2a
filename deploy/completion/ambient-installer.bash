# Completion of ambient-installer for bash: put it into /usr/share/bash-completion/completions/ambient-installer, or source it.
# Names of pods come from the running agent, where it may be asked (root, on its node).

_ambient_installer_pods()
{
	ambient-installer status --all 2>/dev/null | sed -n 's|^\([a-z0-9][a-z0-9.-]*/[a-z0-9.-]*\) .*|\1|p'
}

_ambient_installer()
{
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words=
	local configuration='--config --set'
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W 'run status explain verify preview pause doctor install uninstall config render
			version --help' -- "$word")
		return
	fi
	case $before in
	--config | --kubeconfig | --netns)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		compopt -o filenames
		return ;;
	-o | --output) words='text json' ;;
	--stage) words='full guard' ;;
	--for) words='10m 1h 0' ;;
	--set | --redirect | --timeout) return ;;
	*)
		case $command in
		run) words=$configuration ;;
		status) words="$configuration --all --output" ;;
		explain) words="$configuration --kubeconfig --output" ;;
		verify) words="$configuration --output --netns --redirect --stage" ;;
		preview | doctor) words="$configuration --kubeconfig --output" ;;
		pause) words="$configuration --for" ;;
		install) words="$configuration --output" ;;
		uninstall) words="$configuration --force --output --all-nodes --timeout" ;;
		config) words="$configuration --output --reference" ;;
		render) words='--redirect --stage' ;;
		esac
		words="$words --help"
		case $command in
		explain | verify | pause) [ "${word#-}" = "$word" ] && words="$(_ambient_installer_pods)" ;;
		esac ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _ambient_installer ambient-installer
