"""The tiers of the tests: which are quick, and which rows of long tables are left to `./test -m slow`.

A clean clone must know within a quarter of an hour whether it holds, on two cores that need not be fast. Most of the
time goes into compiling, so a table of a dozen rows over the same lines is thinned: `./test` takes every sixth row,
and `./test -m slow` the others. A test that says something of its own is in no list; one whose subject is shown by
another, which is quicker, or by a small reproduction may be in `LONG`.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent

FAST = {  # files of the fast tier, which `./test fast` runs: some of every room, about two minutes on two cores
    "cli/test_listing_commands.py",
    "data/test_arrays.py",
    "data/test_readers.py",
    "dynamics/test_hopfield.py",
    "dynamics/test_predictive_coding.py",
    "graph/test_graph.py",
    "graph/test_mupc.py",
    "mutations/test_mutants.py",
    "rules/test_rules.py",
    "saving/test_summary.py",
    "solvers/test_solvers.py",
    "test_activations.py",
    "test_package.py",
    "test_reference.py",
    "training/test_learner.py",
}

EVERY = 6  # rows of a thinned table, of which one is in `./test`: the first, the seventh, and so on

THINNED = {
    "certificates/test_alignment.py": ["test_no_update_is_further_from_the_gradient_than_proved"],
    "certificates/test_projection.py": ["test_training_stays_certified"],
    "checks/test_checks.py": ["test_every_dynamics_conforms", "test_every_rule_conforms", "test_every_solver_conforms"],
    "cli/test_wrong_command_lines.py": ["test_what_a_file_says_at_length_is_told_in_short"],
    "dynamics/test_bidirectional.py": [
        "test_full_feedback_has_no_curvature_below_one",
        "test_it_rests_at_the_feed_forward_pass_and_is_linear_near_it",
        "test_without_feedback_it_is_predictive_coding",
    ],
    "dynamics/test_directed.py": ["test_the_adjoint_is_exact_with_units_at_the_walls"],
    "dynamics/test_hopfield.py": ["test_the_energys_gradient_vanishes_where_the_force_does"],
    "dynamics/test_learned_precision.py": ["test_the_gradient_is_that_of_the_closed_form"],
    "dynamics/test_masks.py": ["test_a_mask_of_all_is_clamping"],
    "graph/test_chen2025.py": [
        "test_every_rule_takes_a_step",
        "test_the_sweep_and_backprop_equal_copies_by_hand",
        "test_they_fit_every_data_set",
    ],
    "graph/test_fences.py": [
        "test_hopfield_nets_are_nudged_where_the_cost_reads",
        "test_hopfield_nets_of_several_outputs_follow_the_adjoint",
        "test_several_inputs_and_outputs_follow_backprop",
        "test_the_cost_reads_a_chosen_position_or_all",
    ],
    "graph/test_graph.py": ["test_hoisting_what_clamped_nodes_send_changes_nothing"],
    "graph/test_rounding.py": ["test_the_gradient_is_off_in_proportion_to_the_rounding_whatever_the_nudge"],
    "graph/test_stacking.py": [
        "test_a_training_step_has_as_many_equations_at_depth_8_as_at_depth_64",
        "test_energy_and_force_equal_the_unrolled_graphs",
        "test_first_step_of_a_stack_is_backprop",
        "test_gradients_equal_the_unrolled_graphs",
        "test_sweep_and_predictions_equal_the_unrolled_graphs",
    ],
    "graph/test_sweep.py": ["test_an_axis_written_out_is_the_loop", "test_both_ways_are_the_network_of_separate_nodes"],
    "layers/test_layers.py": [
        "test_convolution_and_its_derivatives_equal_the_primitive",
        "test_every_formulation_of_the_three_maps_agrees",
    ],
    "layers/test_random.py": ["test_dropout_trains_like_the_masked_net"],
    "layers/test_routes.py": ["test_it_is_the_maximum_where_no_order_changes", "test_the_conformance_suite"],
    "layers/test_sparse.py": ["test_every_rule_learns_synapses_like_the_dense_net"],
    "papers/test_chen2025_printed.py": ["test_they_are_energies"],
    "papers/test_depth.py": ["test_a_trajectory_is_the_engines_own"],
    "papers/test_framework.py": ["test_the_command_on_a_page_asks_for_its_settings"],
    "papers/test_two_hop.py": ["test_it_tends_to_backprop"],
    "recipes/test_recipes.py": [
        "test_a_recipe_trains_in_its_regime",
        "test_fixed_steps_are_the_plain_steps_of_papers",
        "test_networks_of_chen2025_carry_width_length_and_activation",
    ],
    "rules/test_adjoint.py": [
        "test_adjoint_equals_finite_differences",
        "test_equilibrium_propagation_tends_to_the_adjoint",
    ],
    "rules/test_directed.py": ["test_corrected_responses_are_the_exact_gradient"],
    "rules/test_first_step.py": ["test_first_step_equals_backprop"],
    "rules/test_peers.py": ["test_energy_and_parameter_gradients"],
    "rules/test_rows.py": [
        "test_a_row_without_numbers_does_not_move_the_parameters",
        "test_a_sample_that_one_phase_loses_has_no_free_half_either",
        "test_a_scheme_that_drops_the_free_term_is_refused_where_that_is_no_constant",
        "test_a_weight_that_is_no_number_leaves_its_row_out",
        "test_data_in_another_precision_than_the_parameters_are_brought_into_theirs",
        "test_weights_repeat_rows",
    ],
    "rules/test_slopes.py": [
        "test_equilibrium_propagation_tends_to_the_adjoint",
        "test_holomorphic_nudging_has_the_order_of_its_points",
        "test_predictive_coding_tends_to_backprop",
        "test_random_signs_average_to_centred_nudging",
    ],
    "solvers/test_batches.py": ["test_a_sample_relaxes_the_same_in_any_batch"],
    "solvers/test_coordinates.py": [
        "test_a_feed_forward_start_has_no_errors_and_the_first_pass_is_not_taken_twice",
        "test_error_coordinates_reach_the_equilibrium_of_the_states_and_its_gradient",
        "test_from_rest_the_same_steps_are_taken_whether_that_is_known_or_not",
        "test_the_least_point_of_a_saturated_cost_is_found_in_two_trials",
        "test_the_model_of_a_linear_net_has_its_least_point_where_the_energy_has",
    ],
    "solvers/test_linear.py": ["test_every_sample_has_its_own_solution"],
    "solvers/test_relax.py": ["test_the_equilibrium_is_differentiable"],
    "solvers/test_verdicts.py": [
        "test_a_large_unit_does_not_hide_the_others",
        "test_complex_states_do_not_descend",
        "test_converged_says_that_the_gradient_is_right",
        "test_what_ends_above_its_start_has_diverged_however_it_is_tested",
    ],
    "training/test_fit.py": ["test_frozen_functions_keep_every_bit", "test_resumed_run_equals_the_uninterrupted_one"],
    "training/test_learner.py": ["test_training_at_a_step_that_diverges_without_a_bound"],
    "training/test_rows.py": ["test_states_of_the_free_phase_do_not_see_the_targets"],
    "training/test_run_folder.py": ["test_a_death_at_any_operation_costs_nothing"],
    "test_activations.py": ["test_minimiser_is_differentiated_implicitly"],
    "test_golden.py": ["test_a_training_step_gives_the_numbers_that_it_gave"],
    "test_notebooks.py": ["test_a_notebook_runs_and_keeps_what_it_says"],
}

LONG = {
    "benchmarks/test_benchmarks.py": [
        "test_a_whole_run_in_processes_writes_numbers_table_and_picture",
        "test_own_rows_compute_what_the_hand_written_ones_do",
        "test_quality_of_a_fully_converged_row_is_zero",
    ],
    "dynamics/test_bidirectional.py": ["test_a_cyclic_graph_takes_its_free_phase_for_reference"],
    "graph/test_chen2025.py": [
        "test_without_recurrence_and_skips_the_simple_network_is_a_chain",
        "test_without_time_a_recurrent_network_settles_where_its_unrolling_tends_to",
    ],
    "papers/test_chen2025_figures.py": ["test_figure_4_takes_the_steps_that_it_says"],
    "papers/test_chen2025_printed.py": ["test_eq_10_does_not_train_and_eq_9_falls_behind_with_depth"],
    "papers/test_costa2025.py": ["test_the_microcircuit_is_certified_and_keeps_its_signs"],
    "papers/test_millidge2023.py": ["test_an_interrupted_training_ends_with_the_same_numbers"],
    "solvers/test_relax.py": ["test_the_derivative_is_that_of_many_steps"],
    "training/test_fit.py": ["test_a_rule_that_draws_signs_is_measured_too"],
    "training/test_learner.py": ["test_a_deep_residual_net_trains_near_its_equilibria"],
    "training/test_parity.py": ["test_one_epoch_in_float64_ends_at_backprops_parameters"],
}


def mark(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of the fast and of the slow tier.

    Raises:
        pytest.UsageError: a list here names a test that is not there.
    """
    gone = [name for name in {*FAST, *THINNED, *LONG} if not (HERE / name).exists()]
    if gone:
        raise pytest.UsageError(f"tests/tiers.py lists {gone}, and there is no such file")
    rows: dict[tuple[str, str], int] = {}
    collected = set()
    for item in items:
        file, name = item.path.relative_to(HERE).as_posix(), getattr(item, "originalname", item.name)
        row = rows[file, name] = rows.get((file, name), -1) + 1
        collected.add(file)
        if file in FAST:
            item.add_marker("fast")
        if name in LONG.get(file, ()) or (name in THINNED.get(file, ()) and row % EVERY):
            item.add_marker("slow")
    if any("::" in word for word in config.args):
        return  # single tests were asked for: the others of their files are not here
    listed = {(file, name) for table in (THINNED, LONG) for file, names in table.items() for name in names}
    if lost := sorted(one for one in listed if one[0] in collected and one not in rows):
        raise pytest.UsageError(f"tests/tiers.py lists {lost}, and there is no such test")
