"""The words of the report and how its numbers come about, for its appendix."""

from __future__ import annotations

TERMS = (
    (
        "Objective, reward",
        "A named trait of a completion. Its reward is the score of one completion, higher is better, inside the "
        "range the task declares. A score that could not be made is missing and left out of means; it is never "
        "counted as 0.",
    ),
    (
        "Audit",
        "An objective that is scored in evaluation only. No method is trained on it and no preference weighs it.",
    ),
    (
        "Preference, utility",
        "A preference holds one weight per objective, summing to 1. Utility is the sum of weight times mean reward "
        "over all test prompts and samples. Achieved utility averages it over preferences, each answered by the "
        "policy the method itself assigns to it.",
    ),
    (
        "95 % interval",
        "Student-t interval of the mean of one value per seed; for achieved utility from 20 seeds on, a nested "
        "bootstrap that draws seeds, and prompts within each. It covers chance in training and sampling, on these test "
        "prompts; it says nothing about new prompts. With one seed there is none.",
    ),
    (
        "Told apart",
        "For every seed, the two methods' values are subtracted; a t-test of these differences is corrected for the "
        "number of methods compared with the leader (Holm). Only seeds that both finished count.",
    ),
    (
        "Rank, tie group",
        "By what the task is judged on: utility, or J, which counts its KL. "
        "The method with the highest mean leads the first group, and all that cannot be told apart from it share its "
        "rank; of the others the best leads the next group. Groups are anchored at their leader, so two methods of a "
        "group may differ from each other, and a chain of small differences is no tie.",
    ),
    (
        "Front, non-dominated",
        "A point is non-dominated if no other is at least as good in every objective and better in one.",
    ),
    (
        "Hypervolume, naive and cross-fitted",
        "Volume between the task's frozen reference point and the mean scores reached over all preferences. Naive: "
        "computed exactly from all prompts; evaluation noise pushes it up, the more so the more points there are, so "
        "compare it only between methods with equally many. Cross-fitted: half of the prompts choose the best point of "
        "each direction and the other half says what it is worth, averaged over many halves; it leans low. On average "
        "the truth lies between the two. Evaluation sd is the noise of one point's mean score.",
    ),
    (
        "Expected utility, naive and cross-fitted",
        "For each preference the utility of the best point of the set in hindsight, averaged over preferences: what a "
        "user would get who could try all policies first. Achieved utility is what users do get.",
    ),
    (
        "J, captured share",
        "J is utility minus beta times KL: what training optimises. Captured share is the gain in J over the base "
        "model, divided by the gain of the best policies, both summed over preferences and averaged over prompts: "
        "0 for the base model, 1 for the best policies there are, negative below the base. It is known where all "
        "completions can be listed; elsewhere the best J is estimated from samples of the base model where they "
        "suffice.",
    ),
    (
        "True front",
        "The best policies' J for each objective, utility of that objective minus beta times KL. Relative "
        "hypervolume divides a method's volume by the front's, above the lowest J of front and base model. IGD+ "
        "is what the nearest policy lacks on average to dominate a point of the front; additive epsilon the least "
        "that, added to all policies, would make them dominate all of it; maximum utility loss the most a user "
        "loses against the best policies. Coverage F1 says how many of the best policies are met, within the "
        "tolerance stated.",
    ),
    (
        "Equal KL",
        "All of a policy's expert weights are multiplied by 0, 1/4, 1/2, 3/4 and 1. Utility between these points "
        "is read off straight lines, at quarters of the smallest KL that every method reaches with every seed.",
    ),
    (
        "Interquartile mean, probability of improvement, performance profile",
        "Over all runs of a budget, a run being one method with one seed on one task. The interquartile mean "
        "leaves out the lowest and the highest quarter of the tasks. The probability of improvement is how often a run "
        "of one method beats one of another on the same task. A profile is the share of runs above each score; it "
        "needs 20 runs.",
    ),
    (
        "Base, reference",
        "The base model as it is, evaluated as the methods are: nothing trained, KL 0. Every method starts from it. It "
        "is shown, never ranked or tuned.",
    ),
    (
        "one_policy",
        "A single policy, trained for equal weights with the whole budget, which answers every preference alike. A "
        "method that asks for preferences has to be better than this, or asking was not worth it. It is ranked.",
    ),
    (
        "Ceiling",
        "No method: experts of the same size trained on the exact objective over all completions, without sampling. "
        "What methods lose against it they lose to noise, budget or merging. It is shown, never ranked or counted.",
    ),
    (
        "KL",
        "Mean over completions of the log-probability under the policy minus that under the base model, in nats: "
        "how far the policy has moved from the base model.",
    ),
    (
        "Cost",
        "Completions sampled for training, selection and search, and wall-clock seconds of every stage a method "
        "uses. A stage shared by methods is trained once and charged in full to each. The longest chain adds up "
        "only stages that must wait for each other. A stage trained in one batch with others is charged its share "
        "of the seconds. Work repeated after a kill is listed apart and not charged.",
    ),
    (
        "Decoding speed",
        "Tokens per second of one policy per method, timed in turn with the base model while nothing else runs; the "
        "ratio is the median of the repeats' ratios.",
    ),
    (
        "Families",
        "single-policy: the policy trained for the nearest preference answers. multi-policy: one of many trained "
        "policies is selected by its measured utility. meta-policy: several experts are combined for each "
        "preference.",
    ),
)
