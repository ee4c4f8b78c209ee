#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# bootprof gate on real boots: verdicts, blame, forms of output, refusals, git bisect, the examples for CI. How often
# the judges err is measured by `make bench-gate`.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3 git gcc cpio
requires_bootprof
requires_kernel

gate()
{
	within 120 "$BOOTPROF" gate "$@" < /dev/null
}

# ---- a guest that boots in a fifth of a second ----

bare
ok 'a baseline is saved' gate --save-baseline "$T/bare.json" --write-budget "$T/bare.yaml" -- "${qemu[@]}"
lacks 'nothing of the guest is printed' 'hello|guest:' "$T/out"
between 'it is small' "$(stat -c %s "$T/bare.json")" 1000 100000
ok 'the same guest passes' gate -b "$T/bare.json" --budget "$T/bare.yaml" --keep "$T" --format=json -- "${qemu[@]}"
cp "$T/out" "$T/pass.json"
is 'by the exact judge, after two boots' "$(json "$T/pass.json" '[d["schema"], d["verdict"], d["judge"]]')" \
	'["bootprof-gate/1", "pass", "exact"]'
ok 'kept recordings pass as well' gate -b "$T/bare.json" "$T/1.bootprof" "$T/2.bootprof"
mkdir "$T/dir" && cp "$T/bare.json" "$T/1.bootprof" "$T/dir"
ok 'a directory of baselines' gate -b "$T/dir" "$T/2.bootprof"

# Another machine is not compared, or only with --force.
bare -smp 1 -m 65
status 5 'another machine is invalid' gate -b "$T/bare.json" --runs 1 --format=json -- "${qemu[@]}"
is 'and says what differs' "$(json "$T/out" '[d["verdict"], d["notes"][-1]]')" \
	'["invalid", "the machines differ: memory: 64 and 65"]'
ok '--force compares it' gate -b "$T/bare.json" --runs 1 --force --noise 5% -- "${qemu[@]}"
like '--force says so' 'machines differ.*--force' "$T/out"

# A recording that is cut off, and one that is not deterministic.
bare
record -q -o "$T/plain" -- "${qemu[@]}" > /dev/null 2>&1
status 5 'exact needs deterministic boots' gate --judge exact -b "$T/bare.json" "$T/plain"
size=$(stat -c %s "$T/1.bootprof")
head -c $((size - 40)) "$T/1.bootprof" > "$T/cut"
status 5 'a recording that is not whole is invalid' gate -b "$T/bare.json" "$T/cut"

# Budgets: one that cannot be kept, one that is wrong.
printf 'bootprof-budget: 1\nmetrics: {insns: 10}\n' > "$T/tight.yaml"
status 3 'a budget that is not kept' gate --budget "$T/tight.yaml" "$T/2.bootprof"
like 'the budget is named' 'budget:metrics:insns .*regression.*the budget is 10' "$T/out"
printf 'bootprof-budget: 1\nphases:\n  user: {insns: x}\n' > "$T/wrong.yaml"
status 1 'a wrong budget is an error' gate --budget "$T/wrong.yaml" "$T/2.bootprof"
one_line 'with file and line' 'wrong\.yaml:3: '
head -c 3000 "$T/bare.json" > "$T/half.json"
status 1 'half a baseline is an error' gate -b "$T/half.json" "$T/2.bootprof"
one_line 'with file and offset' 'half\.json: offset [0-9]+: line [0-9]+'
sed '1s,summary/1,summary/9,' "$T/bare.json" > "$T/newer.json"
status 1 'a newer baseline is an error' gate -b "$T/newer.json" "$T/2.bootprof"
one_line 'with both versions' 'version 9.*up to 1'
status 1 'a baseline on a full disk is an error' gate --save-baseline /dev/full/x "$T/2.bootprof"
status 2 'nothing to compare with' gate "$T/2.bootprof"
status 2 'no noise' gate -b "$T/bare.json" --noise 5 "$T/2.bootprof"
status 1 'a QEMU that is not there' gate -b "$T/bare.json" -- "$T/no-qemu"
status 255 'which ends a bisection' gate --bisect -b "$T/bare.json" -- "$T/no-qemu"

# ---- the statistical judge, on commands that take what they take ----

# How many pairs it takes depends on what else the machine does.
echo 'sleep 0.03' > "$T/fast" && echo 'sleep 0.09' > "$T/slow"
status 3 'three times as slow is slower' gate --only-time --baseline-command "sh $T/fast" --format=json -- sh "$T/slow"
is 'told by ten pairs, or twice or three times as many' "$(json "$T/out" \
	'[d["judge"], d["metrics"][0]["name"], d["metrics"][0]["pairs"] in (10, 20, 30)]')" '["statistical", "time", true]'
between 'the ratio is in its interval' "$(json "$T/out" \
	'd["metrics"][0]["low"] <= d["metrics"][0]["ratio"] <= d["metrics"][0]["high"] and 1 or 0')" 1 1
ok 'three times as fast is none' gate --only-time --baseline-command "sh $T/slow" -- sh "$T/fast"
status 4 'three pairs tell nothing' gate --only-time --runs 3 --max-runs 3 --noise 0% \
	--baseline-command "sh $T/fast" -- sh "$T/fast"
status 125 'for git that is a skip' gate --bisect --only-time --runs 3 --max-runs 3 --noise 0% \
	--baseline-command "sh $T/fast" -- sh "$T/fast"
ok 'a series is saved' gate --judge statistical --only-time --runs 10 --save-baseline "$T/series.json" -- sh "$T/fast"
status 4 'an old series cannot convict' gate --only-time --judge statistical -b "$T/series.json" -- sh "$T/slow"
like 'and says why' 'not run in turn' "$T/out"

# ---- a distribution kernel and a planted loop ----

guest()
{
	"$BOOTPROF_TOP/scripts/make-loop-initrd.sh" "$1" "$2"
}
kernel()
{
	qemu=(qemu-system-x86_64 -M microvm -m 128 -kernel "$BOOTPROF_TEST_KERNEL" -initrd "$1"
		-append 'console=ttyS0 nokaslr cryptomgr.notests panic=-1 reboot=t' -nographic -nic none -no-reboot)
}
mkdir "$T/repo" && cd "$T/repo" || exit
git init -q . && git config user.email test@localhost && git config user.name test
export KERNEL=$BOOTPROF_TEST_KERNEL INITRD=$T/repo/initrd.img
mkdir "$T/bin" && ln -s "$BOOTPROF" "$T/bin/bootprof" && PATH=$T/bin:$PATH
cp "$BOOTPROF_TOP/docs/examples/boot-gate.sh" .
guest initrd.img 1000
ok 'the example makes a baseline' within 60 sh boot-gate.sh new-baseline --runs 1 --floor-runs 2
between 'of a few hundred KiB' "$(stat -c %s boot-baseline.json)" 100000 600000
between 'with a floor' "$(json boot-baseline.json 'd["floor"]["kernel_insns"] / d["kernel_insns"]')" 0 0.001
# One boot instead of two is enough for the examples here.
sed -i 's/bootprof gate/& --runs 1/' boot-gate.sh
ok 'the example of GitLab passes' within 60 sh -c "$(sed -n '/^  script:/,/^  [a-z]/s/^    - //p' \
	"$BOOTPROF_TOP/docs/examples/gitlab-ci.yml")"
ok 'and its report is XML' python3 -c 'import xml.dom.minidom as x
d = x.parse("boot.xml"); assert d.getElementsByTagName("testcase"); assert not d.getElementsByTagName("failure")'

# +0.1 % of up to 0.8 G instructions, six a turn.
guest initrd.img 140000
export GITHUB_STEP_SUMMARY=$T/summary.md
status 3 'a loop of 0.1 % fails the example of GitHub' within 60 \
	sh -c "$(sed -n 's/^        run: \(sh .*\)/\1/p' "$BOOTPROF_TOP/docs/examples/github-actions.yml")"
like 'as an annotation' '^::error title=function%3Aplanted_loop::8[0-9]*k instructions more' "$T/out"
like 'and in the summary' '^### Boot: regression' "$T/summary.md"
like 'with the path to it' 'planted&#95;loop \|.*&#91;user&#93;&#59;planted&#95;loop' "$T/summary.md"

# Commits: 1 good, 2 does not boot, 3 slow, 4 slow. The second cannot be judged, the third is to be found.
guest good.img 1000
guest slow.img 140000
printf 'not an initrd' > broken.img
cat > run.sh <<'END'
. ./state
cp "$image" initrd.img
exec bootprof gate --bisect --runs 1 --timeout 60 -b boot-baseline.json -- \
	qemu-system-x86_64 -M microvm -m 128 -kernel "$KERNEL" -initrd initrd.img \
	-append "console=ttyS0 nokaslr cryptomgr.notests panic=-1 reboot=t" -nographic -nic none -no-reboot
END
git add -f good.img slow.img broken.img run.sh boot-baseline.json
for commit in '1 good' '2 broken' '3 slow' '4 slow'; do
	echo "image=${commit#* }.img # $commit" > state
	git add state && git commit -q -m "commit ${commit% *}"
done
git bisect start HEAD HEAD~3 > /dev/null
within 120 git bisect run sh run.sh > "$T/bisect" 2>&1 < /dev/null
git bisect log > "$T/log"
like 'git bisect skips the commit that does not boot' '^# skip: .*commit 2' "$T/log"
like 'finds the slow one' '^# bad: .*commit 3' "$T/log"
like 'and leaves these two' "only .skip'ped commits left" "$T/bisect"
