package dialect

import "sync"

// The names that a statement may call. Everything else is refused: duckdb_functions() of DuckDB 1.5.5 lists 945 names, each of
// which was looked at once and is either here or named with its reason in refused below. A test compares both lists with the
// engine that is linked in, so that a new version's functions are looked at too.
//
// A function is on the list when its result depends on its arguments (and the clock or chance) only, when it cannot name a
// file, a table or a setting, and when it does not keep the engine from being cancelled.
var allowedFunctions = sync.OnceValue(func() map[string]bool {
	return wordSet(
		// Operators. ~ is a search here, as in DataFusion: a macro stands behind it.
		`+ - * / // % ** ^ & | << >> ! ~ !__postfix && @ @> <@ <-> <=> ^@ || -> ->>
		~~ !~~ ~~* !~~* ~~~ ~* !~* !~ like_escape not_like_escape ilike_escape not_ilike_escape
		add subtract multiply divide mod xor`,

		// Aggregates.
		`any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last arg_min
		arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count count_if
		count_star countif covar_pop covar_samp entropy favg first fsum geomean geometric_mean group_concat histogram
		histogram_exact kahan_sum kurtosis kurtosis_pop last list listagg mad max max_by mean median min min_by mode product
		quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy
		regr_syy reservoir_quantile sem skewness stddev stddev_pop stddev_samp string_agg sum sum_no_overflow sumkahan var_pop
		var_samp variance wavg weighted_avg percentile_cont percentile_disc`,

		// Window functions.
		`cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense row_number`,

		// Names of DataFusion that the rewrite or the engine's macros turn into others.
		`approx_distinct approx_median approx_percentile_cont var var_sample var_population covar mean make_array named_struct
		struct arrow_cast arrow_typeof array_element array_empty array_max array_min array_positions array_product
		array_remove array_remove_all array_repeat array_replace array_replace_all array_union array_except array_join
		array_sum array_avg array_compact arrays_overlap btrim cardinality date_bin date_format empty find_in_set
		from_unixtime get_field initcap iszero list_empty list_except list_join list_length list_pop_back list_pop_front
		list_positions list_push_front list_remove list_remove_all list_repeat list_replace list_replace_all list_to_string
		list_union nanvl nvl nvl2 octet_length rand regexp_count regexp_like regexp_match regexp_instr overlay signum
		string_to_list substr_index substring_index to_char to_date to_local_time to_timestamp to_timestamp_micros
		to_timestamp_millis to_timestamp_nanos to_timestamp_seconds to_unixtime uuid current_time`,

		// Functions of Micromegas.
		`property_get properties_length properties_to_dict properties_to_array properties_to_jsonb jsonb_parse
		jsonb_format_json jsonb_get jsonb_as_string jsonb_as_f64 jsonb_as_i64 jsonb_array_length jsonb_object_keys
		jsonb_path_query jsonb_path_query_first make_histogram sum_histograms quantile_from_histogram
		variance_from_histogram count_from_histogram sum_from_histogram bin_center lerp unlerp rgba lerp_color color_scale
		get_payload`,

		// Dates and times. now() and its kin are the start of the statement.
		`age ago century current_date current_localtime current_localtimestamp date_add date_diff date_part date_sub
		date_trunc datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch
		epoch_ms epoch_ns epoch_us era get_current_time get_current_timestamp hour isodow isoyear julian last_day make_date
		make_time make_timestamp make_timestamp_ms make_timestamp_ns microsecond millennium millisecond minute month
		monthname nanosecond normalized_interval now quarter second strftime strptime try_strptime time_bucket timezone
		timezone_hour timezone_minute to_centuries to_days to_decades to_hours to_microseconds to_millennia
		to_milliseconds to_minutes to_months to_quarters to_seconds to_weeks to_years today transaction_timestamp week
		weekday weekofyear year yearweek`,

		// Numbers.
		`abs acos acosh asin asinh atan atan2 atanh bit_count bit_length bit_position bitstring cbrt ceil ceiling cos cosh cot
		degrees even exp factorial fdiv floor fmod gamma gcd greatest greatest_common_divisor isfinite isinf isnan lcm least
		least_common_multiple lgamma ln log log10 log2 nextafter pi pow power radians random round round_even roundbankers
		set_bit get_bit sign signbit sin sinh sqrt tan tanh trunc equi_width_bins is_histogram_other_bin`,

		// Text and bytes.
		`ascii bar base64 bin char_length character_length chr concat concat_ws contains damerau_levenshtein decode editdist3
		encode ends_with format format_bytes formatreadabledecimalsize formatreadablesize from_base64 from_binary from_hex
		gen_random_uuid hamming hash hex instr jaccard jaro_similarity jaro_winkler_similarity lcase left left_grapheme len
		length length_grapheme levenshtein lower lpad ltrim md5 md5_number md5_number_lower md5_number_upper mismatches
		nfc_normalize ord position prefix printf regexp_escape regexp_extract regexp_extract_all regexp_full_match
		regexp_matches regexp_replace regexp_split_to_array repeat replace reverse right right_grapheme rpad rtrim sha1
		sha256 split split_part starts_with str_split str_split_regex string_split string_split_regex string_to_array
		strip_accents strlen strpos substr substring substring_grapheme suffix to_base to_base64 to_binary to_hex translate
		trim ucase unbin unhex unicode upper url_decode url_encode uuid_extract_timestamp uuid_extract_version uuidv4
		uuidv7 parse_formatted_bytes`,

		// Lists. The name that list_aggregate takes can only be an aggregate's.
		`aggregate apply array_aggr array_aggregate array_any_value array_append array_apply array_cat array_concat
		array_contains array_cosine_distance array_cosine_similarity array_cross_product array_distance array_distinct
		array_dot_product array_extract array_filter array_grade_up array_has array_has_all array_has_any array_indexof
		array_inner_product array_intersect array_length array_negative_dot_product array_negative_inner_product
		array_pop_back array_pop_front array_position array_prepend array_push_back array_push_front array_reduce
		array_resize array_reverse array_reverse_sort array_select array_slice array_sort array_to_string
		array_to_string_comma_default array_transform array_unique array_value array_where array_zip filter flatten
		generate_series generate_subscripts grade_up list_aggr list_aggregate list_any_value list_append list_apply
		list_approx_count_distinct list_avg list_bit_and list_bit_or list_bit_xor list_bool_and list_bool_or list_cat
		list_concat list_contains list_cosine_distance list_cosine_similarity list_count list_distance list_distinct
		list_dot_product list_element list_entropy list_extract list_filter list_first list_grade_up list_has list_has_all
		list_has_any list_histogram list_indexof list_inner_product list_intersect list_kurtosis list_kurtosis_pop list_last
		list_mad list_max list_median list_min list_mode list_negative_dot_product list_negative_inner_product list_pack
		list_position list_prepend list_product list_reduce list_resize list_reverse list_reverse_sort list_select list_sem
		list_skewness list_slice list_sort list_stddev_pop list_stddev_samp list_string_agg list_sum list_transform
		list_unique list_value list_var_pop list_var_samp list_where list_zip range reduce unnest unpivot_list`,

		// Structs, maps, unions, enums.
		`element_at enum_code enum_first enum_last enum_range enum_range_boundary map map_concat map_contains
		map_contains_entry map_contains_value map_entries map_extract map_extract_value map_from_entries map_keys map_values
		row remap_struct struct_concat struct_contains struct_extract struct_extract_at struct_has struct_indexof
		struct_insert struct_keys struct_pack struct_position struct_update struct_values union_extract union_tag
		union_value`,

		// JSON as text.
		`array_to_json from_json from_json_strict json json_array json_array_length json_contains json_exists json_extract
		json_extract_path json_extract_path_text json_extract_string json_group_array json_group_object
		json_group_structure json_keys json_merge_patch json_object json_pretty json_quote json_structure json_transform
		json_transform_strict json_type json_valid json_value row_to_json to_json`,

		// Choices and types.
		`alias can_cast_implicitly coalesce constant_or_null if ifnull nullif switch try typeof`,
	)
})

// Functions of the administrator. remove_query_denial and its kin change what the lake holds.
var adminFunctions = sync.OnceValue(func() map[string]bool {
	return wordSet(`retire_partition_by_file retire_partition_by_metadata remove_query_denial`)
})

// Calls that have side effects or read the lake: the service must know of them.
var serviceCalls = sync.OnceValue(func() map[string]bool {
	return wordSet(`get_payload retire_partition_by_file retire_partition_by_metadata remove_query_denial`)
})

// The names of the engine that are refused, with the reason. The guard does not read this list: what is not allowed is
// refused. It is here to show that nothing was overlooked.
var refused = sync.OnceValue(func() map[string]bool {
	return wordSet(
		// They read files, or run SQL from text.
		`arrow_scan arrow_scan_dumb glob json_deserialize_sql json_execute_serialized_sql json_serialize_plan
		json_serialize_sql pandas_scan parquet_bloom_probe parquet_file_metadata parquet_full_metadata parquet_kv_metadata
		parquet_metadata parquet_scan parquet_schema python_map_function query query_table sql_auto_complete read_blob read_csv read_csv_auto
		read_duckdb read_json read_json_auto read_json_objects read_json_objects_auto read_ndjson read_ndjson_auto
		read_ndjson_objects read_parquet read_text seq_scan sniff_csv import_database copy_database add_parquet_key`,

		// They show settings, file names, other queries, the process or its machine.
		`current_catalog current_connection_id current_database current_query current_query_id current_role current_schema
		current_schemas current_setting current_transaction_id current_user duckdb_approx_database_count duckdb_columns
		duckdb_connection_count duckdb_constraints duckdb_coordinate_systems duckdb_databases duckdb_dependencies
		duckdb_extensions duckdb_external_file_cache duckdb_functions duckdb_indexes duckdb_keywords duckdb_log_contexts
		duckdb_logs duckdb_logs_parsed duckdb_memory duckdb_optimizers duckdb_prepared_statements
		duckdb_profiling_settings duckdb_schemas duckdb_secret_types duckdb_secrets duckdb_sequences duckdb_settings
		duckdb_table_sample duckdb_tables duckdb_temporary_files duckdb_types duckdb_variables duckdb_views getenv
		getvariable get_block_size has_any_column_privilege has_column_privilege has_database_privilege
		has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege has_schema_privilege
		has_sequence_privilege has_server_privilege has_table_privilege has_tablespace_privilege inet_client_addr
		inet_client_port inet_server_addr inet_server_port in_search_path icu_calendar_names pg_timezone_names session_user
		stats txid_current user vector_type version which_secret summary col_description obj_description shobj_description
		format_pg_type format_type map_to_pg_oid collations database_list database_size extension_versions functions
		metadata_info platform show show_databases show_tables show_tables_expanded storage_info table_info user_agent
		all_profiling_output`,

		// They change the process, or hold it up.
		`check_peg_parser disable_peg_parser enable_peg_parser checkpoint currval disable_checkpoint_on_shutdown disable_logging disable_object_cache disable_optimizer
		disable_print_progress_bar disable_profile disable_profiling disable_progress_bar disable_verification
		disable_verify_external disable_verify_fetch_row disable_verify_parallelism disable_verify_serializer
		enable_checkpoint_on_shutdown enable_logging enable_object_cache enable_optimizer enable_print_progress_bar
		enable_profile enable_profiling enable_progress_bar enable_verification error force_checkpoint nextval pg_sleep
		setseed sleep_ms truncate_duckdb_logs verify_external verify_fetch_row verify_parallelism verify_serializer
		write_log`,

		// Parts of the engine's own works, of no use in a query.
		`cast_to_type combine create_sort_key finalize get_type make_type parse_duckdb_log_message repeat_row replace_type
		test_all_types test_vector_types timetz_byte_comparable make_timestamptz bitstring_agg regexp_split_to_table
		histogram_values parse_dirname parse_dirpath parse_filename parse_path variant_bytes_to_variant variant_extract
		variant_normalize variant_to_parquet_variant variant_typeof st_asbinary st_astext st_aswkb st_aswkt st_crs
		st_geomfromwkb st_intersects_extent st_setcrs icu_sort_key`,
		// Besides, every name that begins with __internal_, duckdb_, pg_, pragma_ and icu_collate_.
	)
})

// refusedPrefixes begin names that are refused whatever follows; mm_ begins the engine's own macros.
var refusedPrefixes = [...]string{"__internal_", "duckdb_", "pg_", "pragma_", "icu_collate_", "mm_", "sqlite_"}

// valueNames are words that DuckDB takes for functions when no column has that name.
var valueNames = sync.OnceValue(func() map[string]bool {
	return wordSet(`current_user session_user current_role current_catalog current_schema current_database current_query`)
})

// castTypes are the types that a cast may name. VARIANT is not among them: DuckDB makes it of JSON by recursion, and a deep
// document would end the process.
var castTypes = sync.OnceValue(func() map[string]bool {
	set := wordSet(`BOOLEAN TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT BIGNUM FLOAT DOUBLE
		DECIMAL VARCHAR CHAR BLOB BIT DATE TIME TIME_NS TIMESTAMP TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS INTERVAL UUID LIST ARRAY
		STRUCT MAP UNION ENUM`)
	for _, id := range [...]string{"TIME WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE", "NULL"} {
		set[id] = true
	}
	return set
})

// allowedTypes are the names of types in casts that the parser does not know by itself.
var allowedTypes = sync.OnceValue(func() map[string]string {
	return map[string]string{"float64": "DOUBLE", "float32": "FLOAT", "json": "", "utf8": "VARCHAR", "int64": "BIGINT"}
})
